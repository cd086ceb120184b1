"""Who may have a transaction for a job's effect on PostgreSQL, and when: a worker's connections, lent in turns."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from psycopg import pq

from penstock.errors import StoreUnavailable
from penstock.stores.postgres_connections import PATIENCE, Dialer, Session, Sessions, all_in_use

#: How many short transactions are open at once: more of them than processors only get in each other's way, and while
#: one waits for its turn it can begin in the message that commits another.
_SHORT_ONES = 6
#: Seconds after which a transaction is no short one, and another may begin beside it.
_SHORT = 0.003

Words = Callable[[Session], bytes]


@dataclass(slots=True, eq=False)
class Loan:
    """A connection in use, and what the server answered to the words that were to be said on it first."""

    began: float
    short: bool = True
    session: Session | None = None
    said: Sequence[pq.abc.PGresult] = ()


@dataclass(slots=True, eq=False)
class Waiter:
    """Somebody who waits for a connection since *since*, to say *words* on it first."""

    since: float
    words: Words
    loan: asyncio.Future[Loan]


def lent(loan: Loan) -> Session:
    """The connection of *loan*, which is neither given back nor handed on."""
    assert loan.session is not None
    return loan.session


class Turns:
    """Lends up to *size* connections to the tasks of one event loop, of which ``_SHORT_ONES`` for less than ``_SHORT``.

    *patience*: how long a borrower waits.
    """

    def __init__(self, dialer: Dialer, size: int, patience: timedelta = PATIENCE) -> None:
        self._sessions = Sessions(dialer, patience)
        self._size = size
        self._patience = patience
        self._lent = 0
        self._short = 0
        self._loans: deque[Loan] = deque()  # the short ones, and some that have ended
        self._waiting: deque[Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """Let connections be kept for the next borrower."""
        self._sessions.open()

    async def close(self) -> None:
        """End the connections, those on loan when they come back. Idempotent."""
        await self._sessions.close()

    async def borrow(self, words: Words) -> Loan:
        """A connection without a transaction, to say *words* on; or one where they have been said, in the message that
        committed another transaction: then what was answered is in the loan, failures too.

        Raises ``StoreUnavailable`` when none is free in time or none can be made, and ``ConfigError``.
        """
        loan = await self._turn(words) if self._waiting or not self._free() else self._begin()
        if loan.session is None:
            try:
                loan.session = await self._sessions.take()
            except BaseException:
                self._end(loan)
                raise
        return loan

    async def give_back(self, loan: Loan) -> None:
        """Let the next have the connection of *loan*, or end it when it has a transaction still, or is broken."""
        if loan.session is not None:
            await self._sessions.keep(loan.session)
        self._end(loan)

    def next(self) -> Waiter | None:
        """Whoever is next, to be given a ``ride``, or let wait ``again``; None when nobody waits."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.loan.done():
                return waiter
        return None

    def ride(self, waiter: Waiter, loan: Loan, said: Sequence[pq.abc.PGresult]) -> bool:
        """Let *waiter* have the connection of *loan*, where its words were *said*; False when it waits no more."""
        if waiter.loan.done():
            return False
        session, loan.session = lent(loan), None
        session.as_new()
        self._forget(loan)
        riding = self._begin()
        riding.session, riding.said = session, said
        waiter.loan.set_result(riding)
        return True

    def again(self, waiter: Waiter) -> None:
        """Let *waiter* wait again, as the first."""
        self._waiting.appendleft(waiter)
        self._watch()

    async def _turn(self, words: Words) -> Loan:
        loop = asyncio.get_running_loop()
        waiter = Waiter(loop.time(), words, loop.create_future())
        self._waiting.append(waiter)
        self._watch()
        try:
            return await waiter.loan
        except asyncio.CancelledError:
            await self._undo(waiter.loan)
            raise

    async def _undo(self, turn: asyncio.Future[Loan]) -> None:
        """End a loan that came when its borrower had gone, and the connection with what was said on it."""
        if turn.cancelled() or turn.exception() is not None:
            return
        loan = turn.result()
        if loan.session is not None:
            await loan.session.close()
        self._end(loan)

    def _free(self) -> bool:
        return self._short < _SHORT_ONES and self._lent < self._size

    def _begin(self) -> Loan:
        loan = Loan(asyncio.get_running_loop().time())
        self._lent += 1
        self._short += 1
        self._loans.append(loan)
        return loan

    def _end(self, loan: Loan) -> None:
        self._forget(loan)
        self._wake()

    def _forget(self, loan: Loan) -> None:
        self._lent -= 1
        self._no_longer_short(loan)
        while self._loans and not self._loans[0].short:
            self._loans.popleft()

    def _no_longer_short(self, loan: Loan) -> None:
        if loan.short:
            loan.short = False
            self._short -= 1

    def _wake(self) -> None:
        while self._waiting and self._free():
            waiter = self._waiting.popleft()
            if not waiter.loan.done():
                waiter.loan.set_result(self._begin())

    def _look(self) -> None:
        """Let more begin beside those that last, and send away who has waited for too long."""
        now, self._timer = asyncio.get_running_loop().time(), None
        for loan in self._loans:
            if loan.began > now - _SHORT:
                break
            self._no_longer_short(loan)
        while self._waiting and self._waiting[0].since < now - self._patience.total_seconds():
            waiter = self._waiting.popleft()
            if not waiter.loan.done():
                where = self._sessions.where
                waiter.loan.set_exception(StoreUnavailable(all_in_use(where, self._size, self._patience)))
        self._wake()
        if self._waiting:
            self._watch()

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SHORT, self._look)
