"""A handler's transaction on PostgreSQL, for coroutines and for threads: begun, given, committed or rolled back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any  # rows hold whatever SQL carries

from psycopg import Error, errors

from penstock.claims import Claim
from penstock.stores.postgres_connections import BlockingPool, BlockingSession, Session
from penstock.stores.postgres_errors import raise_meaning
from penstock.stores.postgres_listening import checked
from penstock.stores.postgres_statements import done
from penstock.stores.postgres_turns import Turns, lent
from penstock.stores.schema import FENCED
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
        try:
            cursor = self.connection.cursor()
            await cursor.execute(statement, parameters or None)
            rows = [] if cursor.rownumber is None else await cursor.fetchall()
        except Error as error:
            raise_meaning(error, self._shown, ours=False)
            raise
        return PostgresRows(cursor.rowcount, rows)


class BlockingPostgresTransaction:
    """See ``BlockingTransaction``."""

    def __init__(self, connection: BlockingSession, shown: str) -> None:
        self.connection = connection
        self._shown = shown

    def execute(self, statement: str, parameters: Parameters = ()) -> PostgresRows:
        """See ``BlockingTransaction.execute``."""
        try:
            cursor = self.connection.execute(statement, parameters or None)
            rows = [] if cursor.rownumber is None else cursor.fetchall()
        except Error as error:
            raise_meaning(error, self._shown, ours=False)
            raise
        return PostgresRows(cursor.rowcount, rows)


class PostgresEffect:
    """See ``Effect`` and ``EffectStore.effect``. To be entered once."""

    # Written out, as are the tries in here: generators for context managers would add a sixth to what a transaction
    # takes of the processor.
    def __init__(self, turns: Turns, shown: str) -> None:
        self._turns = turns
        self._shown = shown

    async def __aenter__(self) -> PostgresEffect:
        self._loan = await self._turns.borrow(_begin)
        self._session = lent(self._loan)
        try:
            checked(self._loan.said or await self._session.answers(b"BEGIN"))
        except BaseException as error:
            await self._turns.give_back(self._loan)
            if isinstance(error, Error):
                raise_meaning(error, self._shown)
            raise
        self._session.lent_to_handler = True
        self._ended = False
        self.transaction = PostgresTransaction(self._session, self._shown)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._session.lent_to_handler = False
        try:
            if error is not None:
                await roll_back(self._session, error, self._shown)
            elif not self._ended:
                await self._end(b"COMMIT")
        finally:
            await self._turns.give_back(self._loan)

    async def complete(self, claim: Claim, result: bytes | None) -> bool:
        """See ``Effect.complete``. One round trip: no claim of the job has to wait for a commit that is on its way."""
        try:
            await self._end(done(self._session.pgconn, claim, result))
        except Error as error:
            if error.sqlstate != FENCED:
                raise
            return False
        return True

    async def _end(self, words: bytes) -> None:
        self._session.lent_to_handler, self._ended = False, True
        try:
            check_committed((await self._session.tell(words)).command_status)
        except BaseException as error:
            await roll_back(self._session, error, self._shown)
            if isinstance(error, Error):
                raise_meaning(error, self._shown, ours=False)
            raise


class BlockingPostgresEffect:
    """See ``BlockingEffect`` and ``EffectStore.blocking_effect``. To be entered once."""

    def __init__(self, pool: BlockingPool, shown: str) -> None:
        self._pool = pool
        self._shown = shown

    def __enter__(self) -> BlockingPostgresEffect:
        self._session = self._pool.borrow()
        try:
            self._session.begin()
        except Error as error:
            self._pool.give_back(self._session)
            raise_meaning(error, self._shown)
            raise
        self._session.lent_to_handler = True
        self._ended = False
        self.transaction = BlockingPostgresTransaction(self._session, self._shown)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._session.lent_to_handler = False
        try:
            if error is not None:
                self._roll_back(error)
            elif not self._ended:
                self._end(b"COMMIT")
        finally:
            self._pool.give_back(self._session)

    def complete(self, claim: Claim, result: bytes | None) -> bool:
        """See ``PostgresEffect.complete``."""
        try:
            self._end(done(self._session.pgconn, claim, result))
        except Error as error:
            if error.sqlstate != FENCED:
                raise
            return False
        return True

    def _end(self, words: bytes) -> None:
        self._session.lent_to_handler, self._ended = False, True
        try:
            check_committed(self._session.tell(words).command_status)
        except BaseException as error:
            self._roll_back(error)
            if isinstance(error, Error):
                raise_meaning(error, self._shown, ours=False)
            raise

    def _roll_back(self, error: BaseException) -> None:
        with suppress(Error):  # as above
            self._session.execute("ROLLBACK", prepare=False)
        raise_if_lost(error, self._session, self._shown)


async def roll_back(session: Session, error: BaseException | None, shown: str) -> None:
    """Roll back what *session* has open, because of *error* if there is one.

    Raises ``StoreUnavailable`` for a handler's error that says that the connection broke.
    """
    with suppress(Error):  # the pool ends the connection then, and the server the transaction
        await session.execute("ROLLBACK", prepare=False)
    if isinstance(error, asyncio.CancelledError):
        # psycopg asks the server to break off the statement, and a late asking would hit the next borrower's.
        await session.close()
    raise_if_lost(error, session, shown)


def _begin(_: Session) -> bytes:
    return b"BEGIN"


def check_committed(said: bytes | None) -> None:
    """PostgreSQL answers a COMMIT after a failed statement with a rollback and no error: raise one then."""
    if said != b"COMMIT":
        raise errors.InFailedSqlTransaction("a statement of the transaction had failed: it was rolled back")


def raise_if_lost(error: BaseException | None, session: Session | BlockingSession, shown: str) -> None:
    """What a handler met on the bare connection is not the handler's failure when that connection broke."""
    if isinstance(error, Error) and session.broken:
        raise_meaning(error, shown, ours=False)
