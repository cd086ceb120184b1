"""A handler's transaction on SQLite, for coroutines and for threads, in the same words as on PostgreSQL."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any  # rows hold whatever SQL carries

from penstock.claims import Claim
from penstock.stores.sqlite_errors import translated
from penstock.storing import Parameters

_DONE = """UPDATE penstock_records SET state = 'done', result = ?
    WHERE consumer = ? AND job_id = ? AND token = ? AND state = 'running'"""

_PLACEHOLDER = re.compile(r"%(?:s|%|\((\w+)\)s)")


@lru_cache(maxsize=512)
def in_sqlite(statement: str) -> str:
    """*statement* with its placeholders ``%s``, ``%(name)s`` and ``%%`` as SQLite writes them."""
    return _PLACEHOLDER.sub(lambda found: _written(found[0], found[1]), statement)


def _written(placeholder: str, name: str | None) -> str:
    if name is not None:
        return f":{name}"
    return "?" if placeholder == "%s" else "%"


@dataclass(slots=True)
class SqliteRows:
    """The rows of one statement; ``Rows``."""

    rowcount: int
    rows: list[tuple[Any, ...]]

    def fetchone(self) -> tuple[Any, ...] | None:
        """See ``Rows.fetchone``."""
        return self.rows.pop(0) if self.rows else None

    def fetchall(self) -> list[tuple[Any, ...]]:
        """See ``Rows.fetchall``."""
        rows, self.rows = self.rows, []
        return rows


class BlockingSqliteTransaction:
    """See ``BlockingTransaction``."""

    def __init__(self, connection: sqlite3.Connection, shown: str) -> None:
        self.connection = connection
        self._shown = shown

    def execute(self, statement: str, parameters: Parameters = ()) -> SqliteRows:
        """See ``BlockingTransaction.execute``."""
        with translated(self._shown):
            return _run(self.connection, statement, parameters)


class SqliteTransaction:
    """See ``Transaction``. Statements run on the loop: the lock is held already, and nothing is forced to the disk."""

    def __init__(self, connection: sqlite3.Connection, shown: str) -> None:
        self.connection = connection
        self._shown = shown

    async def execute(self, statement: str, parameters: Parameters = ()) -> SqliteRows:
        """See ``Transaction.execute``."""
        with translated(self._shown):
            return _run(self.connection, statement, parameters)


class SqliteEffect:
    """See ``Effect``."""

    def __init__(self, connection: sqlite3.Connection, shown: str) -> None:
        self.transaction = SqliteTransaction(connection, shown)
        self._shown = shown

    async def complete(self, claim: Claim, result: bytes | None) -> bool:
        """See ``Effect.complete``. The commit is that of the block."""
        with translated(self._shown):
            return _marked(self.transaction.connection, claim, result)


class BlockingSqliteEffect:
    """See ``BlockingEffect``."""

    def __init__(self, connection: sqlite3.Connection, shown: str) -> None:
        self.transaction = BlockingSqliteTransaction(connection, shown)
        self._shown = shown

    def complete(self, claim: Claim, result: bytes | None) -> bool:
        """See ``BlockingEffect.complete``."""
        with translated(self._shown):
            return _marked(self.transaction.connection, claim, result)


def _run(connection: sqlite3.Connection, statement: str, parameters: Parameters) -> SqliteRows:
    values = dict(parameters) if isinstance(parameters, Mapping) else tuple(parameters)
    cursor = connection.execute(in_sqlite(statement) if values else statement, values)
    rows = cursor.fetchall() if cursor.description is not None else []
    return SqliteRows(cursor.rowcount if cursor.description is None else len(rows), rows)


def _marked(connection: sqlite3.Connection, claim: Claim, result: bytes | None) -> bool:
    values = (None if result is None else result.decode(), *claim.key, claim.token)
    return connection.execute(_DONE, values).rowcount == 1
