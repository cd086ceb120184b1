"""Reports from PostgreSQL, by a cursor in a transaction that only reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any  # rows of any query

import psycopg
from psycopg import IsolationLevel, RawServerCursor, errors
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from penstock import ConfigError
from services.reports.outline import Type, Value
from services.reports.ports import BATCH, DatabaseAway, Found, Refused, TooSlow
from services.reports.statement import Statement

#: What a URL need not say. A server that vanished without a word is noticed in a minute, not in two hours.
_DEFAULTS: Mapping[str, str] = {
    "connect_timeout": "5",
    "fallback_application_name": "penstock reports",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

#: Settings of the transaction alone, so that a pooler hands them to nobody else. All rows are read, so the plan is to
#: be the one for that; and a server that sorts for somebody who has been killed is to notice.
_SETTINGS: Mapping[str, str] = {
    "TimeZone": "UTC",
    "cursor_tuple_fraction": "1",
    "client_connection_check_interval": "2s",
}
_SET = "SELECT set_config(name, $2, true) FROM pg_settings WHERE name = $1"  # older servers do not have them all

#: https://www.postgresql.org/docs/current/errcodes-appendix.html: what the query or its data is to blame for.
_REFUSED_CLASSES = ("0A", "21", "22", "2F", "34", "42", "44", "P0")
_REFUSED = frozenset({"25006", "3F000", "54001", "54011", "54023"})
_LONGEST = 300


class PostgresDatabase:
    """The database at *url*, *shown* without its password; no single answer of it may take longer than *patience*.

    Raises ``ConfigError`` for what is no such URL.
    """

    def __init__(self, url: str, shown: str, patience: timedelta) -> None:
        try:
            said = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            # What libpq says may quote the URL, and with it the password.
            raise ConfigError(f"{shown} is no PostgreSQL URL") from error
        self._conninfo = make_conninfo("", **{**_DEFAULTS, **said})
        self._shown = shown
        self._patience = patience

    @contextmanager
    def reading(self, statement: Statement, types: Mapping[str, Type], values: Mapping[str, Value]) -> Iterator[Found]:
        """See ``Database``."""
        sql, order = statement.for_postgres(types)
        with self._translated(), self._connected() as connection, RawServerCursor(connection, "report") as cursor:
            cursor.execute(sql.encode(), [values[name] for name in order])
            columns = [column.name for column in cursor.description or ()]
            yield Found(columns, self._batches(cursor))

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        connection = psycopg.connect(self._conninfo)
        try:
            connection.isolation_level, connection.read_only = IsolationLevel.REPEATABLE_READ, True
            milliseconds = str(round(self._patience.total_seconds() * 1000))
            with psycopg.RawCursor(connection) as cursor:
                for name, value in {**_SETTINGS, "statement_timeout": milliseconds}.items():
                    cursor.execute(_SET, (name, value))
            yield connection
        finally:
            connection.close()

    def _batches(self, cursor: RawServerCursor[tuple[Any, ...]]) -> Iterator[Sequence[Sequence[Any]]]:
        with self._translated():
            while rows := cursor.fetchmany(BATCH):
                yield rows

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except errors.QueryCanceled as error:
            raise TooSlow(f"{self._shown}: {_words(error)}") from error
        except psycopg.Error as error:
            raise (Refused if _is_refusal(error) else DatabaseAway)(f"{self._shown}: {_words(error)}") from error


def _is_refusal(error: psycopg.Error) -> bool:
    """Whether the query or its data is to blame. What psycopg says by itself is about a value, or about the way."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError | psycopg.ProgrammingError)
    return error.sqlstate.startswith(_REFUSED_CLASSES) or error.sqlstate in _REFUSED


def _words(error: psycopg.Error) -> str:
    """The first line of what *error* says."""
    return str(error).partition("\n")[0][:_LONGEST]
