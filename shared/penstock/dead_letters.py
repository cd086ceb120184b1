"""The dead letters of a broker: look at them, replay them, throw them away. Copies first, acks second."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self

from penstock import copies
from penstock.clock import Clock, SystemClock
from penstock.copies import Copy
from penstock.errors import BrokerError, TooLarge, Unencodable, Unroutable
from penstock.events import Events
from penstock.letter_pass import LetterPass
from penstock.letters import DeadLetter, Filter
from penstock.message import Delivery
from penstock.ports import Broker
from penstock.reconnecting import CONNECT_TIMEOUT, Reconnecting
from penstock.sending import Sender
from penstock.topology.names import JOBS

#: Letters under way at once in a replay.
WINDOW = 100

#: Seconds one copy may take to be confirmed.
_CONFIRM = 15.0

#: What is wrong with one letter and says nothing about the next.
_OWN_FAULT = (TooLarge, Unencodable, Unroutable)

_EVERYTHING = Filter()


@dataclass(slots=True)
class ReplayResult:
    """What a replay did: how many letters run again, and those that stayed, by id and why.

    *stopped*: what ended the replay before its time; the letters not reached stayed where they were.
    """

    replayed: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    stopped: BrokerError | None = None


class DeadLetters:
    """Works on dead-letter queues by their full names, such as ``jobs.email.dead``. One event loop.

    Every pass goes over what lies in the queue when it begins, from the oldest on; a job that dies again meanwhile is
    not met twice. What a pass does not settle goes back to its old place, also when the process is killed. Two
    passes over one queue at the same time see different letters and may change their order.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        clock: Clock | None = None,
        events: Events | None = None,
    ) -> None:
        name = f"penstock@{socket.gethostname()}:{os.getpid()}"
        self.events = events or Events()
        self._clock = clock or SystemClock()
        self._tag = f"{name} dead letters"
        self._consume = Reconnecting(broker, f"{name} dead letters", self.events, connect_timeout=connect_timeout)
        self._publish = Reconnecting(broker, f"{name} replay", self.events, connect_timeout=connect_timeout)
        self._sender = Sender(self._publish)

    async def look(
        self, queue: str, where: Filter = _EVERYTHING, *, limit: int | None = None
    ) -> AsyncGenerator[DeadLetter, None]:
        """Yield the letters of *queue* that *where* takes, at most *limit*, and leave all of them where they are.

        Close the iterator (``contextlib.aclosing``) when you leave it early. Raises ``TopologyMismatch`` for a queue
        that does not exist, other ``BrokerError``.
        """
        left = limit
        async with self._pass(queue) as letters:
            while left != 0 and (found := await letters.next(where, self._clock.now_ms())) is not None:
                left = left if left is None else left - 1
                yield found[1]

    async def letters(self, queue: str, where: Filter = _EVERYTHING, *, limit: int | None = None) -> list[DeadLetter]:
        """The letters that ``look`` yields, all in memory."""
        async with contextlib.aclosing(self.look(queue, where, limit=limit)) as found:
            return [letter async for letter in found]

    async def replay(
        self,
        queue: str,
        where: Filter = _EVERYTHING,
        *,
        limit: int | None = None,
        rate: float | None = None,
        window: int = WINDOW,
        remembered: timedelta | None = None,
        each: Callable[[DeadLetter], None] | None = None,
    ) -> ReplayResult:
        """Let the jobs of *queue* that *where* takes run again: same id, next copy number, attempt 1.

        A letter is acked once the broker has confirmed its own copy: killed at any moment, this leaves a duplicate at
        worst (which the copy number tells), never a gap. At most *limit* letters, at most *rate* a second, *window*
        under way at once. *remembered*: letters of jobs whose effect happens once stay when they died longer ago than
        that, for the store may have forgotten them (None: they are replayed all the same). *each* is called with every
        replayed one and must not raise. Letters of ``jobs.unrouted`` are published by their kind, the others go back to
        the queue they died in. Raises ``TopologyMismatch`` when that or *queue* does not exist; later errors are in the
        result.
        """
        result = ReplayResult()
        async with self._pass(queue) as letters:
            await self._check_target(queue)
            run = _Replay(letters, self._sender, result, asyncio.Semaphore(window), each or _ignore)
            await run.all(where, limit, _pace(rate), self._clock, remembered)
        return result

    async def purge(
        self,
        queue: str,
        where: Filter = _EVERYTHING,
        *,
        limit: int | None = None,
        each: Callable[[DeadLetter], None] | None = None,
    ) -> int:
        """Throw away the letters of *queue* that *where* takes, at most *limit*, for good; returns how many."""
        purged = 0
        async with self._pass(queue) as letters:
            while purged != limit and (found := await letters.next(where, self._clock.now_ms())) is not None:
                (each or _ignore)(found[1])
                letters.settle(found[0])
                purged += 1
        return purged

    async def close(self) -> None:
        """Close the connections. Idempotent."""
        await self._sender.close()
        await self._publish.close()
        await self._consume.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def _pass(self, queue: str) -> AsyncIterator[LetterPass]:
        letters = LetterPass(await self._consume.link(), queue, self._tag)
        try:
            await letters.open()
            yield letters
        finally:
            await letters.close()

    async def _check_target(self, queue: str) -> None:
        """The cascade would take a copy for a queue that is gone, and drop it at the unrouted, far from its letters."""
        if queue.endswith(".dead"):
            await (await self._consume.link()).depth(queue.removesuffix(".dead"))


class _Replay:
    """One replay under way."""

    def __init__(
        self,
        letters: LetterPass,
        sender: Sender,
        result: ReplayResult,
        slots: asyncio.Semaphore,
        each: Callable[[DeadLetter], None],
    ) -> None:
        self._letters = letters
        self._sender = sender
        self._result = result
        self._slots = slots
        self._each = each
        self._tasks: set[asyncio.Task[None]] = set()

    async def all(
        self, where: Filter, limit: int | None, pace: Callable[[], float], clock: Clock, remembered: timedelta | None
    ) -> None:
        """Replay what *where* takes; returns once every copy is answered."""
        begun = 0
        try:
            while begun != limit and self._result.stopped is None:
                found = await self._letters.next(where, clock.now_ms())
                if found is None:
                    break
                if remembered is not None and found[1].forgotten(remembered, clock.now_ms()):
                    self._result.failed.append((found[1].id, _FORGOTTEN.format(days=remembered.days)))
                    continue
                await asyncio.sleep(pace())
                await self._slots.acquire()
                task = asyncio.create_task(self._one(*found))
                self._tasks.add(task)
                task.add_done_callback(self._done)
                begun += 1
        except BrokerError as error:
            self._result.stopped = error
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _one(self, delivery: Delivery, letter: DeadLetter) -> None:
        try:
            copy = _copy(letter)
            until = asyncio.get_running_loop().time() + _CONFIRM
            await self._sender.send(copy.message, copy.exchange, copy.key, until)
        except _OWN_FAULT as error:
            self._result.failed.append((letter.id, str(error)))
        except BrokerError as error:
            self._result.stopped = self._result.stopped or error
        else:
            self._letters.settle(delivery)
            self._result.replayed += 1
            self._each(letter)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()


_FORGOTTEN = (
    "its effect happens once, but it died over {days} days ago (PENSTOCK_DEAD_RETENTION) and the store may have "
    "forgotten it: with --force it is replayed, and its effect may happen again"
)


def _copy(letter: DeadLetter) -> Copy:
    if letter.work_queue:
        return copies.replay(letter.message, letter.work_queue)
    return Copy(copies.replay(letter.message, letter.queue).message, JOBS, letter.kind)


def _pace(rate: float | None) -> Callable[[], float]:
    """How long to wait before the next of at most *rate* letters a second."""
    if rate is None:
        return lambda: 0.0
    loop = asyncio.get_running_loop()
    due = loop.time()

    def wait() -> float:
        nonlocal due
        now = loop.time()
        pause = max(0.0, due - now)
        due = max(due, now) + 1 / rate
        return pause

    return wait


def _ignore(_: DeadLetter) -> None:
    """Nobody asked to be told."""
