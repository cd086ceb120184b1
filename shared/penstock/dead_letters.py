"""The dead letters of a broker, looked at, replayed, edited, discarded and put back. Copies first, acks second."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial
from typing import Self

from penstock import copies
from penstock import headers as h
from penstock.audit import Audit, Deed, actor
from penstock.clock import Clock, SystemClock
from penstock.copies import Copy, Note
from penstock.errors import UsageError
from penstock.events import Events
from penstock.failpoints import reach
from penstock.letter_moves import CONFIRM, OWN_FAULT, WINDOW, Each, Move, MoveResult, Moves
from penstock.letter_pass import LetterPass
from penstock.letters import DeadLetter, Filter
from penstock.message import Delivery, Message
from penstock.ports import Broker
from penstock.reconnecting import CONNECT_TIMEOUT, Reconnecting
from penstock.sending import Sender
from penstock.topology.names import JOBS, UNROUTED

#: How often a job is replayed unless somebody insists: it died again each time.
MAX_REPLAYS = 3

#: Why ``put_back`` leaves a letter out.
THERE = "it is in the queue already"

_EVERYTHING = Filter()


class DeadLetters:
    """Works on dead-letter queues by their full names, such as ``jobs.email.dead``. One event loop.

    Every pass goes over what lies in the queue when it begins, from the oldest on; a job that dies again meanwhile is
    not met twice. What a pass does not settle goes back to its old place, also when the process is killed. Two
    passes over one queue at the same time see different letters and may change their order.

    Whatever takes letters away writes into ``jobs.dead.audit`` first, in the name of *who*; if that fails, it does
    nothing.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        clock: Clock | None = None,
        events: Events | None = None,
        who: str | None = None,
    ) -> None:
        name = f"penstock@{socket.gethostname()}:{os.getpid()}"
        self.events = events or Events()
        self._clock = clock or SystemClock()
        self._tag = f"{name} dead letters"
        self._consume = Reconnecting(broker, f"{name} dead letters", self.events, connect_timeout=connect_timeout)
        self._publish = Reconnecting(broker, f"{name} replay", self.events, connect_timeout=connect_timeout)
        self._sender = Sender(self._publish)
        self._audit = Audit(self._sender, self._clock, who or actor())

    async def depth(self, queue: str) -> int:
        """How many letters lie in *queue* that nobody holds. Raises ``BrokerError``."""
        return await (await self._consume.link()).depth(queue)

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
                letters.forget(found[0])
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
        most: int | None = MAX_REPLAYS,
        last_attempt: bool = False,
        because: str = "",
        each: Each | None = None,
    ) -> MoveResult:
        """Let the jobs of *queue* that *where* takes run again: same id, next copy number, attempt 1.

        A letter is acked once the broker has confirmed its own copy: killed at any moment, this leaves a duplicate at
        worst (which the copy number tells), never a gap. At most *limit* letters, at most *rate* a second, *window*
        under way at once. *remembered*: letters of jobs whose effect happens once stay when they died longer ago than
        that, for the store may have forgotten them. *most*: letters replayed that often stay, and so do those that are
        nobody's job as they stand (None for either: they are replayed all the same). *last_attempt*: they run as the
        attempt they died in, so that the next failure is told at once. *each* is called with every replayed one and
        must not raise. Letters of ``jobs.unrouted`` are published by their kind, the others go back to the queue they
        died in. Raises ``TopologyMismatch`` when that or *queue* does not exist, and what kept all letters from being
        replayed; later errors are in the result.
        """
        note = Note(self._clock.now_ms(), f"replayed by {self._audit.who}")
        move = Move(
            where,
            partial(_replay, note=note, last_attempt=last_attempt),
            partial(_keeps, remembered=remembered, most=most, now_ms=self._clock.now_ms()),
            limit,
            rate,
            window,
            each or _ignore,
        )
        async with self._pass(queue) as letters:
            await self._check_target(queue)
            return await self._moved(letters, Deed("replay", queue, where.described(), because), move)

    async def discard(
        self,
        queue: str,
        where: Filter = _EVERYTHING,
        *,
        because: str,
        limit: int | None = None,
        each: Each | None = None,
    ) -> MoveResult:
        """Throw away the letters of *queue* that *where* takes, at most *limit*, for good.

        Raises as ``replay`` does."""
        move = Move(where, lambda _: None, limit=limit, each=each or _ignore)
        async with self._pass(queue) as letters:
            return await self._moved(letters, Deed("discard", queue, where.described(), because), move)

    async def edit(
        self, letter: DeadLetter, body: bytes, kind: str | None = None, *, replay: bool = False, because: str = ""
    ) -> None:
        """Put *body* (and *kind*, if one is given) in place of those of *letter*, as the next copy of the same job.

        The changed letter is the newest in its queue, or runs at once with *replay*; the original leaves when it is
        confirmed. Killed in between, this leaves both, told apart by their copy numbers. Raises ``UsageError``
        when the letter is not there any more as it was seen, and ``BrokerError``.
        """
        changed = copies.edited(letter.message, body, kind)
        note = Note(self._clock.now_ms(), f"edited by {self._audit.who}")
        where = Filter(ids=frozenset((letter.id,)), copy=letter.copy)
        entries = self._audit.opened(Deed("edit", letter.queue, where.described(), because))
        async with self._pass(letter.queue) as letters:
            if replay:
                await self._check_target(letter.queue)
            found = await self._same(letters, letter, where)
            await entries.touch([letter.id])
            reach("letters-named")
            copy = (
                _replay(letter, note, message=changed) if replay else copies.letter(changed, _key(letter.queue), note)
            )
            await self._send(copy)
            reach("letter-confirmed")
            letters.settle(found)
            await entries.end(1, 0)

    async def put_back(self, queue: str, messages: Iterable[Message], *, because: str = "") -> MoveResult:
        """Put *messages*, dead letters as they were exported, into *queue*, but for those that are there already.

        Done again after an interruption, this puts back what is missing. Raises ``BrokerError``.
        """
        await self.depth(queue)
        there = {(letter.id, letter.copy) async for letter in self.look(queue)}
        entries = self._audit.opened(Deed("import", queue, {}, because))
        result = MoveResult()
        batch: list[Message] = []
        for message in messages:
            mark = (message.message_id or "", h.copy_of(message.headers))
            if mark in there:
                result.stayed.append((mark[0], THERE))
                continue
            there.add(mark)
            batch.append(message)
            if len(batch) == WINDOW:
                await self._put(queue, batch, entries.touch, result)
                batch = []
        if batch:
            await self._put(queue, batch, entries.touch, result)
        await entries.end(result.done, len(result.stayed))
        return result

    async def note(self, action: str, queue: str, where: Filter, count: int, because: str = "") -> None:
        """Write into the audit that *count* letters were read by *action*. Raises ``BrokerError``."""
        await self._audit.write(Deed(action, queue, where.described(), because), {"count": count})

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

    async def _moved(self, letters: LetterPass, deed: Deed, move: Move) -> MoveResult:
        return await Moves(letters, self._sender, self._audit.opened(deed), self._clock, move).all()

    async def _same(self, letters: LetterPass, seen: DeadLetter, where: Filter) -> Delivery:
        while (found := await letters.next(where, self._clock.now_ms())) is not None:
            if found[1].message.body == seen.message.body and found[1].kind == seen.kind:
                return found[0]
        raise UsageError(f"the letter {seen.id!r} is not in {seen.queue} any more as it was seen; nothing was changed")

    async def _put(
        self, queue: str, batch: list[Message], touch: Callable[[list[str]], Awaitable[None]], result: MoveResult
    ) -> None:
        await touch([message.message_id or "" for message in batch])
        reach("letters-named")
        sends = (self._send(copies.put_back(message, _key(queue))) for message in batch)
        answers = await asyncio.gather(*sends, return_exceptions=True)
        for message, answer in zip(batch, answers, strict=True):
            if answer is None:
                result.done += 1
            elif isinstance(answer, OWN_FAULT):
                result.stayed.append((message.message_id or "", str(answer)))
            else:
                raise answer

    async def _send(self, copy: Copy) -> None:
        until = asyncio.get_running_loop().time() + CONFIRM
        await self._sender.send(copy.message, copy.exchange, copy.key, until)

    async def _check_target(self, queue: str) -> None:
        """The cascade would take a copy for a queue that is gone, and drop it at the unrouted, far from its letters."""
        if queue != UNROUTED:
            await self.depth(_key(queue))


_FORGOTTEN = (
    "its effect happens once, but it died over {days} days ago (PENSTOCK_DEAD_RETENTION) and the store may have "
    "forgotten it: with --force it is replayed, and its effect may happen again"
)
_IN_VAIN = "it was replayed {times} times and died each time: mend what it dies of, or say --force"
_NO_JOB = "it is no job as it stands ({why}): edit or discard it, or say --force"


def _keeps(letter: DeadLetter, *, remembered: timedelta | None, most: int | None, now_ms: int) -> str:
    """Why *letter* is not to be replayed, or nothing."""
    if remembered is not None and letter.forgotten(remembered, now_ms):
        return _FORGOTTEN.format(days=remembered.days)
    if most is not None and letter.replays >= most:
        return _IN_VAIN.format(times=letter.replays)
    if most is not None and (why := letter.not_a_job):
        return _NO_JOB.format(why=why)
    return ""


def _replay(letter: DeadLetter, note: Note, *, last_attempt: bool = False, message: Message | None = None) -> Copy:
    message = letter.message if message is None else message
    copy = copies.replay(
        message, letter.work_queue or letter.queue, note, attempt=letter.attempt if last_attempt else 1
    )
    return copy if letter.work_queue else Copy(copy.message, JOBS, message.type or letter.kind)


def _key(queue: str) -> str:
    """The key by which ``jobs.dead`` routes to *queue*: its work queue, or what no queue is bound to."""
    return queue.removesuffix(".dead")


def _ignore(_: DeadLetter) -> None:
    """Nobody asked to be told."""
