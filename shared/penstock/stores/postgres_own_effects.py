"""A handler's transaction on PostgreSQL that its claim is a part of: taken, entered, committed as a whole or not."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from psycopg import Error, errors, pq

from penstock.claims import Claim
from penstock.stores.postgres_connections import Session
from penstock.stores.postgres_effects import PostgresTransaction, check_committed, roll_back
from penstock.stores.postgres_errors import raise_meaning, translated
from penstock.stores.postgres_listening import checked
from penstock.stores.postgres_statements import PREPARE, kept, take_within
from penstock.stores.postgres_turns import Loan, Turns, lent


class OwnPostgresEffect:
    """See ``OwnEffect``. To be taken once, then entered or abandoned.

    A transaction that is committed takes along the beginning of another, in one message, when somebody waits for its
    connection: that saves a round trip of three.
    """

    def __init__(self, turns: Turns, shown: str) -> None:
        self._turns = turns
        self._shown = shown
        self._loan: Loan | None = None

    async def take(self, claim: Claim, now: int | None) -> bool:
        """Begin the transaction with *claim* in it; False when it was refused: nothing is open.

        Raises ``StoreUnavailable`` and ``ConfigError``.
        """
        loan = await self._turns.borrow(partial(_beginning, claim, now))
        try:
            self._place = await _place(loan, claim, now)
        except BaseException as error:
            await lent(loan).close()  # whatever it still does, the server rolls back
            await self._turns.give_back(loan)
            if isinstance(error, Error):
                raise_meaning(error, self._shown)
            raise
        if self._place is None:
            await self._turns.give_back(loan)
            return False
        self._loan = loan
        return True

    async def __aenter__(self) -> OwnPostgresEffect:
        assert self._loan is not None, "it is entered once, after it was taken"
        session = lent(self._loan)
        session.lent_to_handler = True
        self._committed = False
        self.transaction = PostgresTransaction(session, self._shown)
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        loan, self._loan = self._loan, None
        if loan is None:
            return  # handed on
        session = lent(loan)
        session.lent_to_handler = False
        try:
            if not self._committed:
                await roll_back(session, error, self._shown)
        finally:
            await self._turns.give_back(loan)

    async def complete(self, _claim: Claim, result: bytes | None) -> bool:
        """See ``Effect.complete``. Its claim holds for as long as the transaction is open."""
        assert self._loan is not None
        session = lent(self._loan)
        session.lent_to_handler = False
        words = kept(session.pgconn, self._place, result)
        try:
            await self._commit(self._loan, session, words)
        except Error as error:
            raise_meaning(error, self._shown, ours=False)
            raise
        return True

    async def _commit(self, loan: Loan, session: Session, words: Sequence[bytes]) -> None:
        """Say *words*, the last of which is COMMIT, and after them what the next one in turn has to say.

        Raises psycopg's errors about *words*.
        """
        rider = self._turns.next()
        answers: Sequence[pq.abc.PGresult] = ()
        try:
            answers = await session.answers(b"; ".join(words if rider is None else (*words, rider.words(session))))
        finally:
            if rider is not None and len(answers) <= len(words):
                self._turns.again(rider)
                rider = None
        if rider is not None and self._turns.ride(rider, loan, answers[len(words) :]):
            self._loan = None
        check_committed(checked(answers[: len(words)]).command_status)
        self._committed = True

    async def renew(self) -> None:
        """See ``OwnEffect.renew``."""
        if self._loan is not None:
            with translated(self._shown):
                await lent(self._loan).touch()

    async def abandon(self) -> None:
        """See ``OwnEffect.abandon``."""
        loan, self._loan = self._loan, None
        if loan is not None:
            await roll_back(lent(loan), None, self._shown)
            await self._turns.give_back(loan)


def _beginning(claim: Claim, now: int | None, session: Session) -> bytes:
    """What begins a transaction that *claim* is a part of. Copies are of jobs that were claimed before, mostly."""
    return b"BEGIN; " + take_within(session.pgconn, claim, now, new=not claim.copy)


async def _place(loan: Loan, claim: Claim, now: int | None) -> bytes | None:
    """Where the record of *claim* is, in a transaction that is open now; None when it is refused, and none is open.

    Raises psycopg's errors.
    """
    session = lent(loan)
    found: pq.abc.PGresult | None = None
    try:
        if not loan.said and session.prepared:
            loan.said = await session.answers(_beginning(claim, now, session))
        found = checked(loan.said) if loan.said else await _prepared(session, _beginning(claim, now, session))
    except errors.InvalidSqlStatementName:  # a handler, or psycopg, had what was prepared forgotten
        found = await _prepared(session, _beginning(claim, now, session))
    except errors.SerializationFailure:
        pass  # where transactions are serializable, that is how it is refused
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
