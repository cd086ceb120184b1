"""What every ``Admin`` does with topology: declare what is missing, tell what differs, delete only what is unused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from penstock.brokers.aio_pika_driver import open_admin
from penstock.brokers.memory import MemoryBroker
from penstock.brokers.pika_driver import PikaBroker
from penstock.errors import TopologyMismatch, Unroutable
from penstock.message import Message
from penstock.ports import Admin, Broker, Link
from penstock.topology.build import build
from penstock.topology.model import Binding, Queue
from penstock.topology.reading import parse_spec
from tests.support.inbox import PATIENCE, Inbox
from tests.support.topologies import QUORUM, exchange, queue, topology
from tests.support.waiting import eventually

BOUND = topology(exchange("e"), queue("q"), Binding("e", "q", "a"))


@dataclass(frozen=True)
class AdminUnderTest:
    """An ``Admin``, and a way to see through a link what it did."""

    admin: Admin
    broker: Broker

    async def look(self) -> Link:
        return await self.broker.connect("look")


@pytest.fixture(params=["memory", "aio-pika"])
async def subject(
    request: pytest.FixtureRequest,
    broker_version: str,  # noqa: ARG001 - the fixture asked for by name below needs it
) -> AsyncIterator[AdminUnderTest]:
    """An ``Admin`` of a broker with nothing declared on it."""
    if request.param == "memory":
        memory = MemoryBroker()
        yield AdminUnderTest(memory, memory)
        return
    url = request.getfixturevalue("vhost_url")
    admin = await open_admin(url)
    yield AdminUnderTest(admin, PikaBroker(url))
    await admin.close()


async def publish(link: Link, name: str, key: str) -> None:
    outlet = await link.outlet()
    await outlet.publish(Message(b"{}"), name, key, asyncio.get_running_loop().time() + PATIENCE)


async def test_what_is_declared_is_there(subject: AdminUnderTest) -> None:
    await subject.admin.declare(BOUND)
    link = await subject.look()
    await publish(link, "e", "a")
    assert await link.depth("q") == 1
    await link.close()


async def test_declaring_again_changes_nothing(subject: AdminUnderTest) -> None:
    await subject.admin.declare(BOUND)
    link = await subject.look()
    await publish(link, "e", "a")
    await subject.admin.declare(BOUND)
    await publish(link, "e", "a")
    assert await link.depth("q") == 2
    await link.close()


async def test_declaring_more_keeps_what_was_there(subject: AdminUnderTest) -> None:
    await subject.admin.declare(BOUND)
    await subject.admin.declare(topology(exchange("e"), queue("q"), queue("p"), Binding("e", "p", "b")))
    link = await subject.look()
    await publish(link, "e", "a")
    await publish(link, "e", "b")
    assert (await link.depth("q"), await link.depth("p")) == (1, 1)
    await link.close()


async def test_the_whole_topology_of_a_team_can_be_declared_twice(subject: AdminUnderTest) -> None:
    wanted = build(parse_spec("queues: {email: [email.*], reports: [report.#]}"))
    await subject.admin.declare(wanted)
    await subject.admin.declare(wanted)
    link = await subject.look()
    await publish(link, "jobs", "email.send")
    assert await link.depth("jobs.email") == 1
    await link.close()


async def test_every_difference_is_named_with_both_values(subject: AdminUnderTest) -> None:
    await subject.admin.declare(topology(exchange("e"), queue("q", ttl_ms=1000), queue("p", limit=5)))
    with pytest.raises(TopologyMismatch) as raised:
        await subject.admin.declare(topology(exchange("e", "direct"), queue("q", ttl_ms=2000), queue("p", limit=6)))
    told = str(raised.value)
    for words in ("exchange e", "topic", "direct", "queue q", "x-message-ttl", "1000", "2000", "queue p", "5", "6"):
        assert words in told


async def test_after_a_difference_nothing_is_bound_and_nothing_is_changed(subject: AdminUnderTest) -> None:
    await subject.admin.declare(topology(exchange("e"), queue("q", limit=5)))
    with pytest.raises(TopologyMismatch):
        await subject.admin.declare(topology(exchange("e"), queue("q", limit=6), queue("new"), Binding("e", "q", "a")))
    await subject.admin.declare(topology(exchange("e"), queue("q", limit=5)))
    link = await subject.look()
    assert await link.depth("new") == 0
    with pytest.raises(Unroutable):
        await publish(link, "e", "a")
    await link.close()


async def test_an_argument_more_or_less_is_a_difference(subject: AdminUnderTest) -> None:
    await subject.admin.declare(topology(Queue("q", {**QUORUM, "x-message-ttl": 1000})))
    with pytest.raises(TopologyMismatch, match="x-message-ttl"):
        await subject.admin.declare(topology(Queue("q", QUORUM)))


@pytest.mark.parametrize(
    "loose",
    [Binding("nowhere", "q", "a"), Binding("e", "nowhere", "a"), Binding("e", "nowhere", "a", to_exchange=True)],
    ids=["no source", "no queue", "no exchange"],
)
async def test_a_binding_with_a_loose_end_is_refused(subject: AdminUnderTest, loose: Binding) -> None:
    await subject.admin.declare(BOUND)
    with pytest.raises(TopologyMismatch, match="nowhere"):
        await subject.admin.declare(topology(loose))
    await subject.admin.declare(BOUND)


async def test_what_is_deleted_is_gone_with_its_bindings(subject: AdminUnderTest) -> None:
    await subject.admin.declare(BOUND)
    await subject.admin.delete([], [queue("q")])
    link = await subject.look()
    with pytest.raises(TopologyMismatch):
        await link.depth("q")
    await subject.admin.declare(topology(queue("q")))
    with pytest.raises(Unroutable):
        await publish(link, "e", "a")
    await subject.admin.delete([exchange("e")], [])
    with pytest.raises(TopologyMismatch):
        await publish(link, "e", "a")
    await link.close()


async def test_deleting_an_exchange_unbinds_it_on_both_sides(subject: AdminUnderTest) -> None:
    parts = (
        exchange("in"),
        exchange("e"),
        queue("q"),
        Binding("in", "e", "#", to_exchange=True),
        Binding("e", "q", "#"),
    )
    await subject.admin.declare(topology(*parts))
    await subject.admin.delete([exchange("e")], [])
    await subject.admin.declare(topology(exchange("e")))
    link = await subject.look()
    for name in ("in", "e"):
        with pytest.raises(Unroutable):
            await publish(link, name, "a")
    await link.close()


async def test_deleting_what_is_not_there_is_no_error(subject: AdminUnderTest) -> None:
    await subject.admin.declare(topology(queue("q")))
    await subject.admin.delete([exchange("nowhere")], [queue("nowhere"), queue("q")])
    await subject.admin.delete([exchange("nowhere")], [queue("nowhere"), queue("q")])
    link = await subject.look()
    with pytest.raises(TopologyMismatch):
        await link.depth("q")
    await link.close()


async def test_a_queue_with_messages_is_not_deleted_nor_anything_with_it(subject: AdminUnderTest) -> None:
    await subject.admin.declare(topology(*BOUND.exchanges, *BOUND.queues, *BOUND.bindings, queue("empty")))
    link = await subject.look()
    await publish(link, "e", "a")
    with pytest.raises(TopologyMismatch, match="q"):
        await subject.admin.delete(BOUND.exchanges, [queue("empty"), queue("q")])
    assert (await link.depth("q"), await link.depth("empty")) == (1, 0)
    await publish(link, "e", "a")
    await link.close()


async def test_a_queue_with_a_consumer_is_not_deleted(subject: AdminUnderTest) -> None:
    await subject.admin.declare(topology(queue("q")))
    link = await subject.look()
    subscription = await link.consume("q", 1, Inbox(), "c")
    with pytest.raises(TopologyMismatch, match="q"):
        await subject.admin.delete([], [queue("q")])
    assert not subscription.ended.done()
    await subscription.close()

    async def deleted() -> bool:
        try:
            await subject.admin.delete([], [queue("q")])
        except TopologyMismatch:  # a broker may count a consumer a moment longer
            return False
        return True

    await eventually(deleted)
    with pytest.raises(TopologyMismatch):
        await link.depth("q")
    await link.close()


async def test_closing_twice_is_closing_once(subject: AdminUnderTest) -> None:
    await subject.admin.declare(BOUND)
    await subject.admin.close()
    await subject.admin.close()
    link = await subject.look()
    assert await link.depth("q") == 0
    await link.close()
