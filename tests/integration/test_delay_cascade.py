"""The delay cascade on a real broker: due on time, by queue and by kind, and nothing wrong in it blocks anybody."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any  # the broker's own headers

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import DeliveryError

from penstock.applying import apply
from penstock.delay import LEVELS, kind_key, queue_key
from penstock.testing.broker_node import BrokerInfo
from penstock.topology.reading import parse_spec
from tests.support.brokers import manage
from tests.support.waiting import eventually
from tests.support.working import empty, foreign, put

SPEC = parse_spec("queues: {email: [email.*], audit: {binds: all}}")
DELAYS = (1, 2, 3, 5, 7)

#: More than the dead letters that may be on their way at once on a private broker.
MANY = 1_100


@dataclass(eq=False)
class Arrivals:
    """What reached a queue, and when, by body."""

    at: dict[str, float] = field(default_factory=dict)

    async def __call__(self, message: AbstractIncomingMessage) -> None:
        self.at[message.body.decode()] = time.monotonic()

    async def all_of(self, bodies: Sequence[str], within: float) -> None:
        await eventually(lambda: self.at.keys() >= set(bodies), within)


@pytest.fixture(scope="module")
def url(broker: BrokerInfo) -> Iterator[str]:
    """A virtual host with the whole topology, for all tests here."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    manage(broker, "PUT", f"/api/vhosts/{name}")
    asyncio.run(apply(broker.url_for(name), SPEC))
    yield broker.url_for(name)
    manage(broker, "DELETE", f"/api/vhosts/{name}")


@pytest.fixture
async def channel(url: str) -> AsyncIterator[AbstractChannel]:
    """A foreign client, with nothing waiting for it."""
    await empty(url, "jobs.unrouted", "jobs.email", "jobs.audit")
    async with foreign(url) as channel:
        yield channel


async def watch(channel: AbstractChannel, queue: str) -> Arrivals:
    """Consume *queue* from now on."""
    arrivals = Arrivals()
    source = await channel.get_queue(queue, ensure=False)
    await source.consume(arrivals, no_ack=True)
    return arrivals


async def depth(channel: AbstractChannel, queue: str) -> int:
    live = await channel.declare_queue(queue, passive=True)
    return live.declaration_result.message_count or 0


async def delay(channel: AbstractChannel, key: str, body: str) -> float:
    """Publish to the cascade's entry, confirmed; when that began."""
    started = time.monotonic()
    await put(channel, key, body.encode(), exchange="jobs.delay")
    return started


async def test_delayed_messages_are_due_within_a_second_by_queue_and_by_kind(channel: AbstractChannel) -> None:
    email, audit = await watch(channel, "jobs.email"), await watch(channel, "jobs.audit")
    due: dict[str, float] = {}
    for seconds in DELAYS:
        due[f"q{seconds}"] = seconds + await delay(channel, queue_key(seconds, "jobs.email"), f"q{seconds}")
        due[f"k{seconds}"] = seconds + await delay(channel, kind_key(seconds, "email.send"), f"k{seconds}")
    await email.all_of(list(due), within=30)
    late = {body: email.at[body] - due[body] for body in due}
    assert min(late.values()) >= -0.05, late
    assert max(late.values()) <= 15, late
    # One of them may have met a moment in which this machine did other things.
    assert sorted(late.values())[len(late) // 2] <= 1, late
    await audit.all_of([body for body in due if body.startswith("k")], within=30)
    assert not any(body.startswith("q") for body in audit.at)


async def test_without_a_delay_the_cascade_delivers_at_once(channel: AbstractChannel) -> None:
    email = await watch(channel, "jobs.email")
    started = {name: await delay(channel, queue_key(0, "jobs.email"), name) for name in ("one", "two", "three")}
    await email.all_of(list(started), within=30)
    assert min(email.at[name] - began for name, began in started.items()) < 1


async def test_what_nobody_takes_when_due_lands_in_unrouted_and_blocks_nobody(channel: AbstractChannel) -> None:
    email = await watch(channel, "jobs.email")
    lost = (queue_key(1, "jobs.gone"), kind_key(1, "emial.send"))
    await asyncio.gather(*(delay(channel, lost[number % 2], "lost") for number in range(MANY)))
    await delay(channel, queue_key(3, "jobs.email"), "behind them")
    await email.all_of(["behind them"], within=15)
    await eventually(lambda: has(channel, "jobs.unrouted", MANY), within=15)
    assert await depth(channel, "jobs.delay.00-1s") == 0


async def has(channel: AbstractChannel, queue: str, count: int) -> bool:
    return await depth(channel, queue) == count


@pytest.mark.parametrize(
    "key",
    [
        "email.send",
        "1.q.jobs.email",
        "0." * (LEVELS - 1) + "q.jobs.email",
        "0." * (LEVELS + 1) + "q.jobs.email",
        "0." * (LEVELS - 1) + "2.q.jobs.email",
        "x." * LEVELS + "q.jobs.email",
        "0." * (LEVELS - 1) + "1.jobs.email",
        "0." * (LEVELS - 1) + "1.q",
        "0." * LEVELS + "k",
        "#",
        "",
    ],
)
async def test_a_malformed_key_comes_back_to_its_publisher(channel: AbstractChannel, key: str) -> None:
    with pytest.raises(DeliveryError):
        await delay(channel, key, "malformed")


async def test_a_wrong_digit_below_the_highest_set_bit_ends_in_unrouted(channel: AbstractChannel) -> None:
    key = queue_key(2, "jobs.email").removesuffix("0.q.jobs.email") + "x.q.jobs.email"
    await delay(channel, key, "half a key")
    await eventually(lambda: has(channel, "jobs.unrouted", 1), within=10)


async def test_a_message_keeps_its_body_and_headers_on_its_way(channel: AbstractChannel) -> None:
    exchange = await channel.get_exchange("jobs.delay", ensure=False)
    message = aio_pika.Message(b"{}", headers={"penstock-attempt": 2}, message_id="id-1", type="email.send")
    await exchange.publish(message, queue_key(3, "jobs.email"))
    source = await channel.get_queue("jobs.email", ensure=False)
    async with asyncio.timeout(10):
        async with source.iterator() as arrived:
            due = await anext(arrived)
            await due.ack()
    assert (due.body, due.message_id, due.type) == (b"{}", "id-1", "email.send")
    assert due.headers["penstock-attempt"] == 2
    deaths: Any = due.headers["x-death"]
    assert [(death["queue"], death["count"]) for death in deaths] == [("jobs.delay.00-1s", 1), ("jobs.delay.01-2s", 1)]
