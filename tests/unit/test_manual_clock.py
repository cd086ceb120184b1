"""The clock that tests turn: what falls due happens in order, and is over before the clock moves on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from penstock.brokers.memory import MemoryBroker
from penstock.message import Delivery, Message
from penstock.testing.clock import ManualClock
from penstock.topology.model import Binding
from tests.support.inbox import Inbox
from tests.support.topologies import exchange, queue, topology

SECOND = timedelta(seconds=1)

LEVELS = topology(
    exchange("late"),
    exchange("due"),
    queue("four", ttl_ms=4000, dead="late"),
    queue("one", ttl_ms=1000, dead="due"),
    queue("work"),
    Binding("late", "one", "#"),
    Binding("due", "work", "#"),
)


async def put(broker: MemoryBroker, queue_name: str, body: bytes = b"{}") -> None:
    outlet = await (await broker.connect("test")).outlet()
    await outlet.publish(Message(body), "", queue_name, asyncio.get_running_loop().time() + 5)


async def test_it_stands_still_by_itself_and_moves_by_what_is_asked() -> None:
    start = datetime(2026, 3, 1, 12, tzinfo=UTC)
    clock = ManualClock(start)
    await clock.advance(timedelta(minutes=90, milliseconds=5))
    assert clock.now() == start + timedelta(minutes=90, milliseconds=5)
    assert clock.now_ms() == round(clock.now().timestamp() * 1000)


async def test_it_cannot_be_turned_back_nor_start_without_a_zone() -> None:
    with pytest.raises(ValueError, match="turned back"):
        await ManualClock().advance(-SECOND)
    with pytest.raises(ValueError, match="time zone"):
        ManualClock(datetime(2026, 1, 1))


async def test_timers_fire_in_the_order_of_their_instants_and_see_them() -> None:
    clock = ManualClock()
    start, seen = clock.now_ms(), []
    for delay in (300, 100, 200):
        clock.call_at(start + delay, lambda: seen.append(clock.now_ms() - start))
    clock.call_at(start + 100, lambda: clock.call_at(start + 150, lambda: seen.append(clock.now_ms() - start)))
    await clock.advance(timedelta(milliseconds=250))
    assert seen == [100, 150, 200]
    await clock.advance(timedelta(milliseconds=50))
    assert seen == [100, 150, 200, 300]


async def test_a_message_takes_every_hop_at_its_own_instant() -> None:
    clock = ManualClock()
    broker = MemoryBroker(LEVELS, clock)
    await put(broker, "four")
    await clock.advance(timedelta(milliseconds=3999))
    assert (len(broker.ready("four")), len(broker.ready("one"))) == (1, 0)
    await clock.advance(timedelta(milliseconds=1))
    assert (len(broker.ready("four")), len(broker.ready("one"))) == (0, 1)
    await clock.advance(timedelta(milliseconds=999))
    assert broker.ready("work") == ()
    await clock.advance(timedelta(milliseconds=1))
    assert len(broker.ready("work")) == 1


async def test_one_turn_over_many_instants_keeps_their_order() -> None:
    clock = ManualClock()
    broker = MemoryBroker(LEVELS, clock)
    await put(broker, "four", b"5 s")
    await clock.advance(SECOND)
    await put(broker, "one", b"1 s")
    await put(broker, "four", b"5 s later")
    await clock.advance(timedelta(hours=1))
    assert [message.body for message in broker.ready("work")] == [b"1 s", b"5 s", b"5 s later"]


async def test_handlers_have_run_before_the_clock_moves_on() -> None:
    clock = ManualClock()
    broker = MemoryBroker(LEVELS, clock)
    link = await broker.connect("worker")
    outlet = await link.outlet()
    start, runs = clock.now_ms(), []

    async def handle(delivery: Delivery) -> None:
        await asyncio.sleep(0.01)
        runs.append((clock.now_ms() - start, delivery.message.body))
        if len(runs) < 4:
            await outlet.publish(delivery.message, "", "one", asyncio.get_running_loop().time() + 5)
        subscription.ack(delivery)

    tasks: list[asyncio.Task[None]] = []
    subscription = await link.consume(
        "work", 4, lambda delivery: tasks.append(asyncio.create_task(handle(delivery))), "c"
    )
    await put(broker, "work", b"again")
    await clock.advance(timedelta(seconds=2, milliseconds=500))
    assert [at for at, _ in runs] == [0, 1000, 2000]
    await clock.advance(timedelta(seconds=10))
    assert [at for at, _ in runs] == [0, 1000, 2000, 3000]


async def test_a_delivery_nobody_settles_is_named() -> None:
    broker = MemoryBroker(LEVELS, ManualClock())
    inbox = Inbox()
    await (await broker.connect("worker")).consume("work", 1, inbox, "c")
    await put(broker, "work")
    await inbox.next()
    with pytest.raises(TimeoutError, match="1 of work"):
        await broker.quiet(patience=timedelta(milliseconds=20))
