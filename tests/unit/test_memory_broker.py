"""What only the broker in memory does: refuse what it does not know, and account for every message."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.brokers.memory import MemoryBroker
from penstock.brokers.memory_link import MemoryOutlet, MemorySubscription
from penstock.errors import ConfigError, ConnectionLost, Unconfirmed, Unencodable, Unroutable
from penstock.message import Delivery, Message
from penstock.testing.clock import ManualClock
from penstock.topology.model import Binding, Exchange, Queue, Topology
from penstock.topology.routing import Router
from tests.support.inbox import Inbox
from tests.support.topologies import exchange, queue, topology

QUEUES = ("q0", "q1", "q2")


async def opened(broker: MemoryBroker) -> MemoryOutlet:
    return await (await broker.connect("test")).outlet()


def soon() -> float:
    return asyncio.get_running_loop().time() + 5


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (Queue("q", {"x-max-length": 5}), "x-max-length"),
        (Queue("q", {"x-max-priority": 5}), "x-max-priority"),
        (Queue("q", {"x-expires": 5}), "x-expires"),
        (Exchange("e", "headers"), "headers"),
        (Exchange("e", arguments={"x-what": 1}), "x-what"),
    ],
)
async def test_what_it_does_not_know_is_refused_by_name(part: Exchange | Queue, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        MemoryBroker(topology(part))


async def test_a_single_active_consumer_queue_takes_messages_but_no_consumer() -> None:
    broker = MemoryBroker(topology(Queue("state", {"x-single-active-consumer": True})))
    await (await opened(broker)).publish(Message(b"{}"), "", "state", soon())
    with pytest.raises(ConfigError, match="single active consumer"):
        await (await broker.connect("test")).consume("state", 1, Inbox(), "c")
    assert len(broker.ready("state")) == 1


async def test_a_header_that_amqp_cannot_carry_is_refused() -> None:
    outlet = await opened(MemoryBroker(topology(queue("q"))))
    with pytest.raises(Unencodable, match="odd"):
        await outlet.publish(Message(b"{}", {"odd": object()}), "", "q", soon())
    with pytest.raises(Unencodable, match="routing key"):
        await outlet.publish(Message(b"{}"), "", "q" * 256, soon())


async def test_a_publish_after_its_deadline_is_unconfirmed_and_not_sent() -> None:
    broker = MemoryBroker(topology(queue("q")))
    with pytest.raises(Unconfirmed):
        await (await opened(broker)).publish(Message(b"{}"), "", "q", asyncio.get_running_loop().time() - 1)
    await broker.quiet()
    assert broker.ready("q") == ()


async def test_closing_an_outlet_leaves_its_publishes_unknown() -> None:
    outlet = await opened(MemoryBroker(topology(queue("q"))))
    answer = outlet.publish(Message(b"{}"), "", "q", soon())
    assert outlet.pending == 1
    await outlet.close()
    with pytest.raises(ConnectionLost):
        await answer
    with pytest.raises(ConnectionLost):
        await outlet.publish(Message(b"{}"), "", "q", soon())
    assert outlet.pending == 0


async def test_a_dead_letter_that_no_queue_takes_is_kept_at_least_once_and_dropped_at_most_once() -> None:
    clock = ManualClock()
    parts = (exchange("x"), queue("safe", ttl_ms=1, dead="x"), queue("unsafe", ttl_ms=1, dead="x", safe=False))
    broker = MemoryBroker(topology(*parts), clock)
    outlet = await opened(broker)
    for name in ("safe", "unsafe"):
        await outlet.publish(Message(b"{}"), "", name, soon())
    await clock.advance(timedelta(seconds=1))
    assert len(broker.held("safe")) == 1
    assert broker.dropped == Counter({("unsafe", "expired, dead letter not routed"): 1})


# Accounting: on any network, whatever consumers do, every copy of a confirmed message is somewhere, once.

LETTER_TARGETS = ("q0", "q1", "q2", "nowhere")


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """Two exchanges bound to three queues at random; each queue dead-letters into at most one other."""
    parts: list[Exchange | Queue | Binding] = [exchange("in"), exchange("side", alternate="in")]
    for name in QUEUES:
        dead = draw(st.booleans())
        parts.append(
            queue(
                name,
                limit=draw(st.sampled_from([0, 1, 20])),
                ttl_ms=draw(st.sampled_from([None, 0, 500, 1000])),
                dead=f"letters.{name}" if dead else None,
                safe=draw(st.booleans()),
            )
        )
        target = draw(st.sampled_from(LETTER_TARGETS))
        parts.append(exchange(f"letters.{name}"))
        if target in QUEUES:
            parts.append(Binding(f"letters.{name}", target, "#"))
    keys = st.sampled_from(["a", "b", "#", "a.*"])
    bindings = st.builds(Binding, st.sampled_from(["in", "side"]), st.sampled_from(QUEUES), keys)
    return topology(*parts, *draw(st.lists(bindings, min_size=1, max_size=5)))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(["in", "side"]), st.sampled_from(["a", "b", "a.b"])),
        st.tuples(st.sampled_from(["consume", "close", "delete"]), st.sampled_from(QUEUES), st.just("")),
        st.tuples(st.sampled_from(["ack", "release", "reject"]), st.sampled_from(QUEUES), st.just("")),
        st.tuples(st.just("wait"), st.just(""), st.just("")),
    ),
    max_size=40,
)


class HastyClock(ManualClock):
    """Waits for nobody: what is delivered may stay unsettled while time passes."""

    def join(self, quiet: Callable[[], Awaitable[None]]) -> None:
        """Take no notice."""


@dataclass
class Ledger:
    """Drives a broker step by step and counts the copies that went in and came out."""

    net: Topology
    broker: MemoryBroker
    clock: ManualClock
    outlet: MemoryOutlet
    copies: int = 0
    acked: int = 0
    gone: set[str] = field(default_factory=set)
    taken: dict[str, list[tuple[MemorySubscription, Delivery]]] = field(default_factory=dict)

    async def step(self, verb: str, name: str, key: str) -> None:
        match verb:
            case "publish":
                await self.publish(name, key)
            case "consume" if name not in self.gone:
                await self.consume(name)
            case "delete":
                self.gone.add(name)
                self.broker.delete_queue(name)
            case "ack" | "release" | "reject" | "close" if self.taken.get(name):
                await self.answer(verb, *self.taken[name].pop(0))
        await self.clock.advance(timedelta(milliseconds=500) if verb == "wait" else timedelta())
        for _ in range(5):
            await asyncio.sleep(0)

    async def publish(self, name: str, key: str) -> None:
        queues = tuple(queue for queue in self.net.queues if queue.name not in self.gone)
        bindings = tuple(binding for binding in self.net.bindings if binding.destination not in self.gone)
        routes = Router(Topology(self.net.exchanges, queues, bindings)).queues(name, key)
        with nullcontext() if routes else pytest.raises(Unroutable):
            await self.outlet.publish(Message(b"{}"), name, key, soon())
        self.copies += len(routes)

    async def consume(self, name: str) -> None:
        link = await self.broker.connect("consumer")
        taken = self.taken.setdefault(name, [])
        subscription = await link.consume(name, 2, lambda delivery: taken.append((subscription, delivery)), "c")

    async def answer(self, verb: str, subscription: MemorySubscription, delivery: Delivery) -> None:
        if verb == "close":
            await subscription.close()
            return
        self.acked += verb == "ack" and not subscription.ended.done()
        getattr(subscription, verb)(delivery)

    @property
    def accounted(self) -> int:
        places = (self.broker.ready, self.broker.unacked, self.broker.held)
        stored = sum(len(place(name)) for place in places for name in QUEUES if name not in self.gone)
        return stored + self.acked + self.broker.dropped.total()


@settings(max_examples=300, deadline=None)
@given(networks(), steps)
def test_every_copy_is_ready_unacked_held_acked_or_dropped_by_a_rule(
    net: Topology, script: list[tuple[str, str, str]]
) -> None:
    async def play() -> None:
        clock = HastyClock()
        broker = MemoryBroker(net, clock)
        ledger = Ledger(net, broker, clock, await opened(broker))
        for step in script:
            await ledger.step(*step)
            assert ledger.accounted == ledger.copies

    asyncio.run(play())
