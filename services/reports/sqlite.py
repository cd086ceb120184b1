"""Reports from SQLite files, which are opened for reading only."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any  # rows of any query

from services.reports.outline import Type, Value
from services.reports.ports import BATCH, DatabaseAway, Found, Refused, TooSlow
from services.reports.statement import Statement

#: How long somebody who writes is waited for (seconds), and after how many steps the clock is looked at.
_LOCKED = 30.0
_STEPS = 100_000

#: https://www.sqlite.org/rescode.html: the file cannot be locked, read or opened now.
_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
    }
)


class SqliteDatabase:
    """The file at *path*; no single answer of it may take longer than *patience*."""

    def __init__(self, path: Path, patience: timedelta) -> None:
        self._path = path
        self._patience = patience.total_seconds()
        self._where = f"sqlite:///{path}"

    @contextmanager
    def reading(self, statement: Statement, types: Mapping[str, Type], values: Mapping[str, Value]) -> Iterator[Found]:
        """See ``Database``. A single SELECT sees the state in which the file was when it began."""
        del types
        with self._translated(), closing(self._opened()) as connection:
            clock = _Clock(self._patience)
            connection.set_progress_handler(clock.is_over, _STEPS)
            cursor = connection.execute(statement.for_sqlite(), {name: _bound(each) for name, each in values.items()})
            yield Found([column[0] for column in cursor.description], self._batches(cursor, clock))

    def _opened(self) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        return sqlite3.connect(uri, uri=True, timeout=_LOCKED, isolation_level=None)

    def _batches(self, cursor: sqlite3.Cursor, clock: _Clock) -> Iterator[Sequence[Sequence[Any]]]:
        with self._translated():
            while clock.begin() and (rows := cursor.fetchmany(BATCH)):
                yield rows

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", None)
            primary = None if code is None else code & 0xFF
            if primary == sqlite3.SQLITE_INTERRUPT:
                raise TooSlow(f"{self._where} took longer than {self._patience:g} s") from error
            raise (DatabaseAway if primary in _AWAY else Refused)(f"{self._where}: {error}") from error


class _Clock:
    """Tells whether an answer takes longer than *patience* seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._end = time.monotonic() + patience

    def begin(self) -> bool:
        """Begin to wait for the next one; always true."""
        self._end = time.monotonic() + self._patience
        return True

    def is_over(self) -> bool:
        return time.monotonic() > self._end


def _bound(value: Value) -> str | int | float | None:
    """*value* as SQLite keeps it: dates and instants as texts, as its own functions give them."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() and abs(value) < 2**63 else float(value)
        case bool():
            return int(value)
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        case date():
            return value.isoformat()
    return value
