"""SQLite's errors in our words: which of them mean that the store is away, not that a statement is wrong."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from penstock.errors import ConfigError, StoreUnavailable

#: https://www.sqlite.org/rescode.html: the file cannot be locked, written, read or opened now.
_AWAY = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_RUINED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_PRIMARY = 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Whether somebody else holds the lock."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise ``StoreUnavailable`` or ``ConfigError`` for what SQLite says of the file *where*; leave the rest."""
    try:
        yield
    except sqlite3.Error as error:
        code = _code(error)
        if code in _AWAY:
            raise StoreUnavailable(f"{where}: {_words(error)}") from error
        if code in _RUINED:
            raise ConfigError(f"{where} is no SQLite database, or a damaged one: {error}") from error
        if "no such table: penstock_" in str(error):
            raise ConfigError(f"{where} has no penstock tables: run penstock store migrate") from error
        raise
    except PermissionError as error:
        raise StoreUnavailable(f"{where}: {error.strerror}") from error


def _words(error: sqlite3.Error) -> str:
    return "another process holds the write lock for too long" if is_busy(error) else str(error)


def _code(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & _PRIMARY
