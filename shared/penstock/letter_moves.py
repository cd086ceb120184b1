"""Dead letters on their way out of their queue: named in the audit, copied and confirmed, and only then acked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from penstock.audit import Entries
from penstock.clock import Clock
from penstock.copies import Copy
from penstock.errors import BrokerError, TooLarge, Unencodable, Unroutable
from penstock.failpoints import reach
from penstock.letter_pass import LetterPass
from penstock.letters import DeadLetter, Filter
from penstock.message import Delivery
from penstock.sending import Sender

#: Letters under way at once.
WINDOW = 250

#: Letters named by one entry of the audit, and bytes of their bodies that are held meanwhile.
_BATCH = 500
_BATCH_BYTES = 8 * 1024 * 1024

#: Seconds one copy may take to be confirmed.
CONFIRM = 15.0

#: What is wrong with one letter and says nothing about the next.
OWN_FAULT = (TooLarge, Unencodable, Unroutable)

Each = Callable[[DeadLetter], None]


@dataclass(slots=True)
class MoveResult:
    """What became of the letters meant: how many were *done*, and those that *stayed*, by id and why.

    *stopped*: what ended the work before its time; the letters not reached stayed where they were.
    """

    done: int = 0
    stayed: list[tuple[str, str]] = field(default_factory=list)
    stopped: BrokerError | None = None

    def add(self, other: MoveResult) -> None:
        """Take in what became of further letters."""
        self.done += other.done
        self.stayed += other.stayed
        self.stopped = self.stopped or other.stopped


@dataclass(frozen=True, slots=True)
class Move:
    """What is to become of the letters that *where* takes, at most *limit*, at most *rate* a second.

    *copy*: what replaces a letter, None when nothing does. *keeps*: why a letter has to stay, empty when it need not.
    *each* is called with every one that is done and must not raise.
    """

    where: Filter
    copy: Callable[[DeadLetter], Copy | None]
    keeps: Callable[[DeadLetter], str] = lambda _: ""
    limit: int | None = None
    rate: float | None = None
    window: int = WINDOW
    each: Each = lambda _: None


class Moves:
    """One move under way. A letter is acked once the broker has confirmed what replaces it: killed at any moment, this
    leaves a duplicate at worst, never a gap, and every letter that left is in the audit."""

    def __init__(self, letters: LetterPass, sender: Sender, entries: Entries, clock: Clock, move: Move) -> None:
        self.result = MoveResult()
        self._letters = letters
        self._sender = sender
        self._entries = entries
        self._clock = clock
        self._move = move
        self._begun = 0
        self._slots = asyncio.Semaphore(move.window)
        self._tasks: set[asyncio.Task[None]] = set()
        self._guard: asyncio.Task[None] | None = None

    async def all(self) -> MoveResult:
        """Move what is meant; returns once every copy is answered. Raises ``BrokerError`` when nothing was done."""
        pause = _pace(self._move.rate)
        ended: object = "interrupted"
        try:
            while self.result.stopped is None and (batch := await self._batch()):
                self._guard = self._guard or asyncio.create_task(self._stop_when_lost())
                await self._entries.touch([letter.id for _, letter in batch])
                reach("letters-named")
                await self._send(batch, pause)
            ended = None
        except BrokerError as error:
            self.result.stopped = self.result.stopped or error
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks)
            if self._guard is not None:
                self._guard.cancel()
            await self._end(self.result.stopped or ended)
        if self.result.stopped is not None and not self.result.done and not self.result.stayed:
            raise self.result.stopped
        return self.result

    async def _batch(self) -> list[tuple[Delivery, DeadLetter]]:
        """The next letters to be moved, as many as one entry of the audit names; empty at the end."""
        batch: list[tuple[Delivery, DeadLetter]] = []
        most = _BATCH if self._move.rate is None else max(1, min(_BATCH, int(self._move.rate)))
        size = 0
        while len(batch) < most and size < _BATCH_BYTES and self._begun != self._move.limit:
            found = await self._letters.next(self._move.where, self._clock.now_ms())
            if found is None:
                break
            if why := self._move.keeps(found[1]):
                self.result.stayed.append((found[1].id, why))
                continue
            batch.append(found)
            size += len(found[1].message.body)
            self._begun += 1
        return batch

    async def _send(self, batch: list[tuple[Delivery, DeadLetter]], pause: Callable[[], float]) -> None:
        for found in batch:
            if wait := pause():  # otherwise those that have a slot go out in one write
                await asyncio.sleep(wait)
            await self._slots.acquire()
            if self.result.stopped is not None:
                return
            task = asyncio.create_task(self._one(*found))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    async def _one(self, delivery: Delivery, letter: DeadLetter) -> None:
        copy = self._move.copy(letter)
        try:
            if copy is not None:
                until = asyncio.get_running_loop().time() + CONFIRM
                await self._sender.send(copy.message, copy.exchange, copy.key, until)
        except OWN_FAULT as error:
            self.result.stayed.append((letter.id, str(error)))
        except BrokerError as error:
            self.result.stopped = self.result.stopped or error
        else:
            reach("letter-confirmed")
            self._letters.settle(delivery)
            self.result.done += 1
            self._move.each(letter)

    async def _stop_when_lost(self) -> None:
        """A letter that is back in its queue must not be moved from here as well: what is under way may have arrived,
        and to send it again over the next connection would double it for certain."""
        self.result.stopped = self.result.stopped or await self._letters.lost()
        for task in self._tasks:
            task.cancel()

    async def _end(self, stopped: object) -> None:
        try:
            await self._entries.end(self.result.done, len(self.result.stayed), stopped)
        except BrokerError as error:
            self.result.stopped = self.result.stopped or error

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()


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
