"""The reports service put together: ``penstock worker services.reports.app:build``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from penstock import ConfigError, Handlers, Worker
from penstock.claims import StoreUrl
from penstock.settings import Settings as PenstockSettings
from penstock_jobs import SALES_REPORT, TABLE_REPORT
from services.reports.databases import STORE, open_databases, read_places
from services.reports.definitions import Definition, read_definitions
from services.reports.fonts import lettering
from services.reports.handlers import Reports
from services.reports.settings import Settings


def build() -> Worker:
    """The reports service that ``REPORTS_*`` describes. Raises ``ConfigError``."""
    settings = Settings.read()
    reports = reports_of(settings)
    handlers = Handlers()
    register = partial(
        handlers.on,
        retry=settings.retry_policy(),
        timeout=settings.timeout,
        # Writing files is plain computing: in a thread it would hold up the worker's loop, and nothing could stop it.
        isolation="process",
        memory=settings.memory * 1024 * 1024,
        once="lease",
    )
    register(SALES_REPORT)(reports.sales_report)
    register(TABLE_REPORT)(reports.table_report)
    return Worker(handlers, queue="reports", slots=settings.slots, unknown_kind_grace=settings.unknown_kind_grace)


def reports_of(settings: Settings) -> Reports:
    """The reports that *settings* describe. Raises ``ConfigError``."""
    definitions = read_definitions(settings.definitions)
    databases = open_databases(places_of(settings), settings.statement_timeout)
    if problems := missing_databases(definitions, databases):
        raise ConfigError(*problems)
    lettering(settings.font)  # here rather than in the middle of a report
    return Reports(
        settings.source_dir,
        settings.output_dir,
        definitions,
        databases,
        max_rows=settings.max_rows,
        font=settings.font,
    )


def places_of(settings: Settings) -> Mapping[str, StoreUrl]:
    """Where each database is; where the store is, unless that is Redis, which nobody can report on."""
    named = read_places("" if settings.databases is None else settings.databases.get_secret_value())
    if STORE in named:
        return named
    store = PenstockSettings.load().store
    return named if store.scheme in ("redis", "rediss") else {STORE: store, **named}


def missing_databases(definitions: Mapping[str, Definition], known: Mapping[str, object]) -> list[str]:
    """A problem for each report on a database that nobody has named. One on the store waits until it is asked for: that
    may be Redis, and whoever does without reports on it needs no other."""
    return [
        f"report {name}: REPORTS_DATABASES does not say where database {each.database} is"
        for name, each in definitions.items()
        if each.database not in known and each.database != STORE
    ]
