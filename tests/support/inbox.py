"""Collects deliveries, so that a test can wait for the next one."""

from __future__ import annotations

import asyncio

from penstock.message import Delivery

PATIENCE = 30.0


class Inbox:
    """A consumer's callback that keeps what it is given, in order."""

    def __init__(self) -> None:
        self.seen: list[Delivery] = []
        self._fresh: asyncio.Queue[Delivery] = asyncio.Queue()

    def __call__(self, delivery: Delivery) -> None:
        self.seen.append(delivery)
        self._fresh.put_nowait(delivery)

    async def next(self) -> Delivery:
        """The next delivery; fails the test when none comes in time."""
        async with asyncio.timeout(PATIENCE):
            return await self._fresh.get()

    async def take(self, number: int) -> list[Delivery]:
        """The next *number* deliveries."""
        return [await self.next() for _ in range(number)]

    @property
    def empty(self) -> bool:
        """Whether every delivery so far was taken."""
        return self._fresh.empty()
