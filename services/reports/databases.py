"""Which databases there are to report on: their names, and where each of them is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from penstock import ConfigError
from penstock.claims import StoreUrl
from services.reports.ports import Database
from services.reports.sqlite import SqliteDatabase

#: The database in which the service's own store is, unless ``REPORTS_DATABASES`` says otherwise.
STORE = "store"

_ENTRY = re.compile(r"([a-z][a-z0-9_-]{0,39})=(\S+)")


def read_places(text: str) -> Mapping[str, StoreUrl]:
    """Read ``NAME=URL``, any number of them, apart by white space. Raises ``ConfigError``; shows no password."""
    places: dict[str, StoreUrl] = {}
    for number, word in enumerate(text.split(), start=1):
        found = _ENTRY.fullmatch(word)
        if found is None:
            raise ConfigError(f"REPORTS_DATABASES: entry {number} is not NAME=URL, such as shop=postgresql://host/shop")
        if found[1] in places:
            raise ConfigError(f"REPORTS_DATABASES: {found[1]} is there twice")
        places[found[1]] = _place(found[1], found[2])
    return places


def open_databases(places: Mapping[str, StoreUrl], patience: timedelta) -> Mapping[str, Database]:
    """What is at each of the *places*; nothing is connected to yet. Raises ``ConfigError``."""
    return {name: _database(place, patience) for name, place in places.items()}


def _place(name: str, url: str) -> StoreUrl:
    try:
        place = StoreUrl.parse(url)
    except ConfigError as error:
        raise ConfigError(
            f"REPORTS_DATABASES: {name}: {str(error).replace('PENSTOCK_STORE_URL ', 'the URL ')}"
        ) from None
    if place.scheme not in ("sqlite", "postgresql"):
        raise ConfigError(f"REPORTS_DATABASES: {name}: a report needs SQLite or PostgreSQL, not {place.shown}")
    return place


def _database(place: StoreUrl, patience: timedelta) -> Database:
    if place.scheme == "sqlite":
        return SqliteDatabase(Path(place.path), patience)
    from services.reports.postgres import PostgresDatabase  # psycopg is an extra

    return PostgresDatabase(place.text, place.shown, patience)
