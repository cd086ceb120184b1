"""Many small questions into few round trips: what is asked while one is under way goes together with the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

#: Questions in one round trip, at most.
MOST = 500


class Batcher(Generic[Q, A]):
    """Asks *ask* a batch of questions at a time, in order, never two with the same key in one batch. One event loop.

    No timer and no added wait: alone, a question goes out at the end of the loop's turn; under load, those that came
    meanwhile go together. A batch that fails fails for everyone in it.
    """

    def __init__(self, ask: Callable[[Sequence[Q]], Awaitable[Sequence[A]]]) -> None:
        self._ask = ask
        self._waiting: list[tuple[Hashable, Q, asyncio.Future[A]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, key: Hashable, question: Q) -> A:
        """The answer to *question*. A caller that is cancelled leaves its question to be asked all the same."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((key, question, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._round(self._next())
        finally:
            self._running = None

    def _next(self) -> list[tuple[Hashable, Q, asyncio.Future[A]]]:
        batch: list[tuple[Hashable, Q, asyncio.Future[A]]] = []
        later, keys = [], set()
        for item in self._waiting:
            if item[0] in keys or len(batch) >= MOST:
                later.append(item)
            else:
                keys.add(item[0])
                batch.append(item)
        self._waiting = later
        return batch

    async def _round(self, batch: list[tuple[Hashable, Q, asyncio.Future[A]]]) -> None:
        try:
            answers = await self._ask([question for _, question, _ in batch])
        except BaseException as error:
            for _, _, future in batch:  # whatever stopped it, nobody may wait for ever
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # its asker may have been cancelled
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        for (_, _, future), answer in zip(batch, answers, strict=True):
            if not future.done():
                future.set_result(answer)
