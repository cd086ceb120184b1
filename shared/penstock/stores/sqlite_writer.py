"""The writer of a SQLite file: what comes while others write joins their transaction, and one commit is enough for all.

SQLite has one write lock, and a commit that has reached the disk takes longer than all else that a small effect does.
So effects run one after the other, each in a savepoint, in one transaction for as long as others wait for their turn.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from penstock.errors import PenstockError, StoreUnavailable
from penstock.stores.sqlite_errors import is_busy, translated

T = TypeVar("T")

#: Turns in one transaction, and seconds after which it is committed whoever waits: the first of it waits for the last.
_MOST, _LONGEST = 64, 0.02

#: Seconds after which a transaction is committed that the next in turn never came to.
_FORGOTTEN = 0.005

#: Seconds between two tries to get the write lock: soon at first, then seldom.
FIRST_WAIT, LONGEST_WAIT = 0.0005, 0.02


class _Group:
    """One transaction and who is in it."""

    def __init__(self) -> None:
        self.turns = 0
        self.until = time.monotonic() + _LONGEST
        self.committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def full(self) -> bool:
        return self.turns >= _MOST or time.monotonic() >= self.until

    def fail(self, error: BaseException) -> None:
        if not self.committed.done():
            self.committed.set_exception(error)
            self.committed.exception()  # whoever was in it may be gone


class Writer:
    """Writes through *light*, whose commits are not forced to the disk, and *durable*, whose are. One event loop.

    *busy*: seconds the lock is waited for while another process has it. Every call raises ``StoreUnavailable``.
    """

    def __init__(self, light: sqlite3.Connection, durable: sqlite3.Connection, shown: str, busy: float) -> None:
        self._light = light
        self._durable = durable
        self._shown = shown
        self._busy = busy
        self._gate = asyncio.Lock()
        self._waiting = 0
        self._group: _Group | None = None
        self._committer = ThreadPoolExecutor(1, "commit")
        self._reminder: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Close the connections; what is not committed is rolled back."""
        if self._reminder is not None:
            self._reminder.cancel()
        self._committer.shutdown(wait=True)
        self._light.close()
        self._durable.close()

    async def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool) -> T:
        """What *work* returns; on the disk by then when it is *durable*, in the file in any case."""
        if durable:
            async with self.turn() as connection:
                with translated(self._shown):
                    return work(connection)
        async with self._entered():
            if self._group is None:
                return await self._lightly(work)
            # It goes with the effects whose transaction has the lock. Should that fail, a claim in it is forgotten,
            # and its token with it.
            with translated(self._shown):
                return work(self._durable)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[sqlite3.Connection]:
        """The file, for one caller at a time: what the block writes is on the disk when this ends, all of it or, when
        the block raises, nothing."""
        async with self._entered():
            group = self._group or await self._begun()
            try:
                self._durable.execute("SAVEPOINT turn")
                yield self._durable
                self._durable.execute("RELEASE turn")
            except BaseException:
                self._undo(group)
                raise
            finally:
                group.turns += 1
                await self._pass_on(group)
        await asyncio.shield(group.committed)

    @asynccontextmanager
    async def _entered(self) -> AsyncIterator[None]:
        self._waiting += 1
        try:
            await self._gate.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._gate.release()

    async def _begun(self) -> _Group:
        with translated(self._shown):
            await self._begin(self._durable)
        self._group = _Group()
        return self._group

    async def _lightly(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with translated(self._shown):
            await self._begin(self._light)
            try:
                done = work(self._light)
                self._light.commit()
            finally:
                roll_back(self._light)
        return done

    async def _begin(self, connection: sqlite3.Connection) -> None:
        """Get the write lock without stopping the loop: SQLite's own wait would."""
        deadline, wait = time.monotonic() + self._busy, FIRST_WAIT
        while not begun(connection, deadline):
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    def _undo(self, group: _Group) -> None:
        """Take back this turn. A full disk takes back the whole transaction (https://www.sqlite.org/lang_transaction.html)."""
        with suppress(sqlite3.Error):
            self._durable.execute("ROLLBACK TO turn")
            self._durable.execute("RELEASE turn")
        if not self._durable.in_transaction:
            group.fail(StoreUnavailable(f"{self._shown}: the transaction was rolled back"))

    async def _pass_on(self, group: _Group) -> None:
        """Commit, unless somebody waits who goes on in the same transaction."""
        if group.committed.done():
            self._group = None
        elif not self._waiting or group.full:
            committing = asyncio.create_task(self._commit(group))
            try:
                await asyncio.shield(committing)
            except asyncio.CancelledError:  # the lock is not given away in the midst of a commit
                await asyncio.wait([committing])
                raise
        elif self._reminder is None or self._reminder.done():
            self._reminder = asyncio.create_task(self._remind())

    async def _remind(self) -> None:
        """Should those who waited have gone (cancelled), somebody has to commit all the same."""
        while self._group is not None:
            await asyncio.sleep(_FORGOTTEN)
            if self._group is not None and not self._gate.locked():
                async with self._entered():
                    if self._group is not None:
                        await self._pass_on(self._group)

    async def _commit(self, group: _Group) -> None:
        self._group = None
        try:
            with translated(self._shown):
                await asyncio.get_running_loop().run_in_executor(self._committer, self._durable.commit)
        except BaseException as error:
            group.fail(error)  # whatever stopped it, nobody may wait for ever
            if not isinstance(error, (sqlite3.Error, PenstockError)):
                raise
        else:
            group.committed.set_result(None)
        finally:
            roll_back(self._durable)


def begun(connection: sqlite3.Connection, deadline: float) -> bool:
    """Whether *connection* has the write lock now. Raises SQLite's error after *deadline*."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if not is_busy(error) or time.monotonic() > deadline:
            raise
        return False
    return True


def roll_back(connection: sqlite3.Connection) -> None:
    """Roll back what is open."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):  # a full disk may have rolled it back already
            connection.rollback()
