"""A handler's transaction on PostgreSQL, for coroutines and for threads: begun, given, committed or rolled back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any  # rows hold whatever SQL carries

import psycopg

from penstock.claims import Claim
from penstock.stores.postgres_connections import BlockingPool, BlockingSession, Pool, Session
from penstock.stores.postgres_errors import meaning, translated
from penstock.stores.postgres_statements import DONE, storable, written
from penstock.storing import Parameters


@dataclass(slots=True)
class PostgresRows:
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


class PostgresTransaction:
    """See ``Transaction``."""

    def __init__(self, connection: Session, shown: str) -> None:
        self.connection = connection
        self._shown = shown

    async def execute(self, statement: str, parameters: Parameters = ()) -> PostgresRows:
        """See ``Transaction.execute``. A statement that comes again and again is prepared by psycopg."""
        with translated(self._shown, ours=False):
            cursor = await self.connection.execute(statement, parameters or None)
            rows = [] if cursor.rownumber is None else await cursor.fetchall()
            return PostgresRows(cursor.rowcount, rows)


class BlockingPostgresTransaction:
    """See ``BlockingTransaction``."""

    def __init__(self, connection: BlockingSession, shown: str) -> None:
        self.connection = connection
        self._shown = shown

    def execute(self, statement: str, parameters: Parameters = ()) -> PostgresRows:
        """See ``BlockingTransaction.execute``."""
        with translated(self._shown, ours=False):
            cursor = self.connection.execute(statement, parameters or None)
            rows = [] if cursor.rownumber is None else cursor.fetchall()
            return PostgresRows(cursor.rowcount, rows)


class PostgresEffect:
    """See ``Effect``."""

    def __init__(self, connection: Session, shown: str) -> None:
        self.transaction = PostgresTransaction(connection, shown)
        self._shown = shown

    async def complete(self, claim: Claim, result: bytes | None) -> bool:
        """See ``Effect.complete``. To be the last of the transaction: from here on a claim of the job waits for it."""
        session = self.transaction.connection
        session.lent_to_handler = False
        with translated(self._shown):
            return (await session.execute(DONE, _values(claim, result), prepare=True)).rowcount == 1


class BlockingPostgresEffect:
    """See ``BlockingEffect``."""

    def __init__(self, connection: BlockingSession, shown: str) -> None:
        self.transaction = BlockingPostgresTransaction(connection, shown)
        self._shown = shown

    def complete(self, claim: Claim, result: bytes | None) -> bool:
        """See ``PostgresEffect.complete``."""
        session = self.transaction.connection
        session.lent_to_handler = False
        with translated(self._shown):
            return session.execute(DONE, _values(claim, result), prepare=True).rowcount == 1


@asynccontextmanager
async def effect_on(pool: Pool, shown: str) -> AsyncIterator[PostgresEffect]:
    """See ``EffectStore.effect``."""
    async with pool.lent() as session:
        with translated(shown):
            await session.execute("BEGIN", prepare=False)
        # From here on the handler's own deadline counts, not ours.
        session.lent_to_handler = True
        try:
            yield PostgresEffect(session, shown)
            session.lent_to_handler = False
            with translated(shown, ours=False):
                _check_committed(await session.execute("COMMIT", prepare=False))
        except BaseException as error:
            await _roll_back(session)
            if isinstance(error, asyncio.CancelledError):
                # psycopg asks the server to break off the statement, and a late asking would hit the next borrower's.
                await session.close()
            _raise_if_lost(error, session, shown)
            raise


@contextmanager
def blocking_effect_on(pool: BlockingPool, shown: str) -> Iterator[BlockingPostgresEffect]:
    """See ``EffectStore.blocking_effect``."""
    with pool.lent() as session:
        with translated(shown):
            session.execute("BEGIN", prepare=False)
        session.lent_to_handler = True
        try:
            yield BlockingPostgresEffect(session, shown)
            session.lent_to_handler = False
            with translated(shown, ours=False):
                _check_committed(session.execute("COMMIT", prepare=False))
        except BaseException as error:
            _roll_back_blocking(session)
            _raise_if_lost(error, session, shown)
            raise


async def _roll_back(session: Session) -> None:
    session.lent_to_handler = False
    with suppress(psycopg.Error):  # the pool ends the connection then, and the server the transaction
        await session.execute("ROLLBACK", prepare=False)


def _roll_back_blocking(session: BlockingSession) -> None:
    session.lent_to_handler = False
    with suppress(psycopg.Error):  # as above
        session.execute("ROLLBACK", prepare=False)


def _check_committed(cursor: psycopg.AsyncCursor[Any] | psycopg.Cursor[Any]) -> None:
    """PostgreSQL answers a COMMIT after a failed statement with a rollback and no error."""
    if cursor.statusmessage != "COMMIT":
        raise psycopg.errors.InFailedSqlTransaction("a statement of the transaction had failed: it was rolled back")


def _raise_if_lost(error: BaseException, session: Session | BlockingSession, shown: str) -> None:
    """What the handler met on the bare connection is not the handler's failure when that connection broke."""
    if isinstance(error, psycopg.Error) and session.broken and (lost := meaning(error, shown, ours=False)):
        raise lost from error


def _values(claim: Claim, result: bytes | None) -> tuple[str | None, str, str, int]:
    return written(result), claim.consumer, storable(claim.job_id), claim.token
