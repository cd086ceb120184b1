"""When the watchdog opens a consumer anew, and when it leaves it alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import pytest

from penstock.consuming import Consuming
from penstock.errors import AccessRefused, BrokerError, ConnectionLost
from penstock.events import Event, Events, WatchdogReopened
from penstock.ports import Link, Subscription
from penstock.watchdog import watch_consumer

PATIENCE = 0.04


class Scene:
    """A consumer's surroundings as the watchdog sees them: each look finds it *starved* or not, in turn."""

    def __init__(self, starved: Iterable[bool], depths: Iterable[int | BrokerError] = ()) -> None:
        self.ended: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self.last_delivery = 0.0
        self.reopened: list[Event] = []
        self._starved: Iterator[bool] = iter(starved)
        self._depths: Iterator[int | BrokerError] = iter(depths)

    @property
    def starved(self) -> bool:
        """The next look; the last one ends the watch."""
        found = next(self._starved, None)
        if found is None and not self.ended.done():
            self.ended.set_result(ConnectionLost("the end of the test"))
        return bool(found)

    async def depth(self, queue: str) -> int:
        """How many messages wait in *queue*, or what keeps the broker from saying so."""
        assert queue == "jobs.email"
        found = next(self._depths, 5)
        if isinstance(found, BrokerError):
            raise found
        return found

    async def close(self) -> None:
        """Close the subscription."""
        self.ended.set_result(ConnectionLost("closed by the watchdog"))

    async def watched(self) -> int:
        """Watch it to its end; how often it was opened anew."""
        events = Events()
        events.subscribe(self.reopened.append)
        link: Link = self  # type: ignore[assignment]  # as much of one as the watchdog uses
        subscription: Subscription = self  # type: ignore[assignment]
        consuming: Consuming = self  # type: ignore[assignment]
        async with asyncio.timeout(5):
            await watch_consumer(link, subscription, consuming, events, "jobs.email", PATIENCE)
        return len([event for event in self.reopened if isinstance(event, WatchdogReopened)])


async def test_a_consumer_that_starves_beside_ready_messages_is_opened_anew() -> None:
    assert await Scene([True] * 20).watched() == 1


async def test_a_slot_that_came_free_a_moment_ago_has_not_starved() -> None:
    assert await Scene([False, False, False, True, True, False, False, True, True]).watched() == 0


async def test_an_empty_queue_starves_nobody() -> None:
    assert await Scene([True] * 8, depths=[0] * 8).watched() == 0


@pytest.mark.parametrize("error", [ConnectionLost("no answer"), BrokerError("odd")])
async def test_a_look_that_fails_is_not_the_last(error: BrokerError) -> None:
    assert await Scene([True] * 20, depths=[error, 5]).watched() == 1


async def test_without_the_right_to_look_the_watchdog_gives_up() -> None:
    scene = Scene([True] * 20, depths=[AccessRefused("no")])
    assert await scene.watched() == 0
    assert not scene.ended.done()
