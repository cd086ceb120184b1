"""Getting one message onto the broker, whatever happens to channels and connections meanwhile, until a deadline."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Protocol

from penstock.errors import BrokerError, ConnectionLost, Unconfirmed
from penstock.message import Message
from penstock.ports import Link, Outlet

#: The share of the remaining time one try may take before its outcome counts as unknown and the message is sent again.
_SHARE = 0.5
_LONGEST_TRY = 5.0


class Links(Protocol):
    """Where a sender's connections come from: ``Reconnecting``, or the only one there will be."""

    @property
    def closed(self) -> bool:
        """Whether there will be no link any more."""
        ...

    async def link(self) -> Link:
        """The live link, opened when there is none. Raises ``BrokerError``."""
        ...


class Sender:
    """Sends messages over the current outlet of the current link. One event loop; its tasks may share it.

    A message whose outcome is unknown (no answer, channel or connection lost) is sent again on a new channel. While the
    broker blocks the connection nothing is written at all, for every rewrite would arrive once the alarm is over. The
    copies carry the same job id: at worst a duplicate, never a loss.
    """

    def __init__(self, links: Links) -> None:
        self._links = links
        self._outlet: Outlet | None = None
        self._link: Link | None = None
        self._opening = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> Outlet | None:
        """The outlet to publish through at once, or None when one must be opened first."""
        outlet = self._outlet
        if outlet is None or outlet.lost.done() or self._link is None or self._link.blocked:
            return None
        return outlet

    async def send(self, message: Message, exchange: str, key: str, deadline: float) -> None:
        """Publish and wait for the confirm, until loop time *deadline*.

        Raises the broker's own refusals (``Unroutable``, ``Nacked``, ``TooLarge``, ``AccessRefused``,
        ``TopologyMismatch``) at once; when the deadline passes unanswered, ``Unconfirmed``, or ``ConnectionLost``
        when nothing was ever written.
        """
        last: BrokerError | None = None
        written = False
        while True:
            try:
                outlet = self.ready or await self._within(self.outlet(), deadline)
                written = True
                await outlet.publish(message, exchange, key, self.try_until(deadline))
                return
            except ConnectionLost as error:
                if self._links.closed:
                    raise
                last = error
            except Unconfirmed as error:
                last = error
                self.renew(outlet)
            except TimeoutError:
                raise _given_up(exchange, key, last, written) from last
            if asyncio.get_running_loop().time() >= deadline:
                raise _given_up(exchange, key, last, written) from last

    async def outlet(self) -> Outlet:
        """The current outlet, opened when there is none. Raises ``BrokerError``."""
        async with self._opening:
            link = await self._links.link()
            if link.blocked:
                await _unblocked(link)
            if self._outlet is None or self._outlet.lost.done() or link is not self._link:
                self._outlet, self._link = await link.outlet(), link
            return self._outlet

    async def close(self) -> None:
        """Close every outlet; the links stay with their owner. Idempotent."""
        for task in self._retiring:
            task.cancel()
        if self._outlet is not None:
            await self._outlet.close()

    def renew(self, outlet: Outlet) -> None:
        """After an unknown outcome: never again on this channel, whose other publishes may still be confirmed."""
        if outlet is self._outlet:
            self._outlet = self._link = None
            self._retire(outlet)

    def _retire(self, outlet: Outlet) -> None:
        task = asyncio.create_task(_close_when_idle(outlet))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    @staticmethod
    def try_until(deadline: float) -> float:
        """Until when one try of a message that may take until *deadline* waits for its answer (loop times)."""
        now = asyncio.get_running_loop().time()
        return now + Sender.patience(deadline - now)

    @staticmethod
    def patience(seconds: float) -> float:
        """How long one try of a message that may take *seconds* waits for its answer."""
        return min(seconds * _SHARE, _LONGEST_TRY) if seconds > 1.0 else seconds

    @staticmethod
    async def _within(opening: Awaitable[Outlet], deadline: float) -> Outlet:
        async with asyncio.timeout_at(deadline):
            return await opening


def _given_up(exchange: str, key: str, last: BrokerError | None, written: bool) -> BrokerError:
    why = f": {last}" if last is not None else " (the broker cannot be reached or blocks publishers)"
    if written:
        return Unconfirmed(f"no confirm for {key!r} on exchange {exchange!r} before the deadline{why}")
    return last or ConnectionLost(f"nothing was sent before the deadline{why}")


async def _unblocked(link: Link) -> None:
    """Wait until the broker takes messages again or the link is gone; the caller's deadline bounds it."""
    while link.blocked and not link.lost.done():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.shield(link.lost)


async def _close_when_idle(outlet: Outlet) -> None:
    """Close *outlet* once its other publishes have their answers: they may still be confirmed."""
    while outlet.pending and not outlet.lost.done():  # noqa: ASYNC110 - the port tells how many wait, not when the last is gone
        await asyncio.sleep(0.1)
    await outlet.close()
