"""A handler's transaction on PostgreSQL that its claim is a part of: taken, entered, committed as a whole or not."""

from __future__ import annotations

from psycopg import Error, errors, pq

from penstock.claims import Claim
from penstock.stores.postgres_connections import Pool, Session
from penstock.stores.postgres_effects import PostgresTransaction, check_committed, roll_back
from penstock.stores.postgres_errors import raise_meaning, translated
from penstock.stores.postgres_statements import PREPARE, kept, take_within


class OwnPostgresEffect:
    """See ``OwnEffect``. To be taken once, then entered or abandoned."""

    def __init__(self, pool: Pool, shown: str) -> None:
        self._pool = pool
        self._shown = shown
        self._session: Session | None = None
        self._place: bytes | None = None

    async def take(self, claim: Claim, now: int | None) -> bool:
        """Begin the transaction with *claim* in it, in one round trip; False when it was refused: nothing is open.

        Raises ``StoreUnavailable`` and ``ConfigError``.
        """
        session = await self._pool.borrow()
        try:
            self._place = await _place(session, claim, now)
        except BaseException as error:
            await session.close()  # whatever it still does, the server rolls back
            await self._pool.give_back(session)
            if isinstance(error, Error):
                raise_meaning(error, self._shown)
            raise
        if self._place is None:
            await self._pool.give_back(session)
            return False
        self._session = session
        return True

    async def __aenter__(self) -> OwnPostgresEffect:
        session = self._session
        assert session is not None, "it is entered once, after it was taken"
        session.lent_to_handler = True
        self._committed = False
        self.transaction = PostgresTransaction(session, self._shown)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        session, self._session = self._session, None
        assert session is not None
        session.lent_to_handler = False
        try:
            if not self._committed:
                await roll_back(session, error, self._shown)
        finally:
            await self._pool.give_back(session)

    async def complete(self, _claim: Claim, result: bytes | None) -> bool:
        """See ``Effect.complete``. Its claim holds for as long as the transaction is open."""
        session = self._session
        assert session is not None
        session.lent_to_handler = False
        try:
            check_committed((await session.tell(kept(session.pgconn, self._place, result))).command_status)
        except Error as error:
            raise_meaning(error, self._shown, ours=False)
            raise
        self._committed = True
        return True

    async def renew(self) -> None:
        """See ``OwnEffect.renew``."""
        if self._session is not None:
            with translated(self._shown):
                await self._session.touch()

    async def abandon(self) -> None:
        """See ``OwnEffect.abandon``."""
        session, self._session = self._session, None
        if session is not None:
            await roll_back(session, None, self._shown)
            await self._pool.give_back(session)


async def _place(session: Session, claim: Claim, now: int | None) -> bytes | None:
    """Where the record of *claim* is, in a transaction that is open now; None when it is refused, and none is open.

    Raises psycopg's errors.
    """
    words = b"BEGIN; " + take_within(session.pgconn, claim, now, new=not claim.copy)  # copies were claimed before
    try:
        found = await (session.tell(words) if session.prepared else _prepared(session, words))
    except errors.InvalidSqlStatementName:  # a handler, or psycopg, had what was prepared forgotten
        found = await _prepared(session, words)
    except errors.SerializationFailure:  # where transactions are serializable, that is how it is refused
        found = None
    if found is not None and not found.ntuples and not claim.copy:
        found = await session.tell(take_within(session.pgconn, claim, now, new=False))
    if found is not None and found.ntuples:
        return found.get_value(0, 0)
    await session.tell(b"ROLLBACK")
    return None


async def _prepared(session: Session, words: bytes) -> pq.abc.PGresult:
    """The result of *words*, said once ``PREPARE`` was."""
    if session.pgconn.transaction_status != pq.TransactionStatus.IDLE:
        await session.tell(b"ROLLBACK")
    await session.tell(PREPARE.encode())
    session.prepared = True
    return await session.tell(words)
