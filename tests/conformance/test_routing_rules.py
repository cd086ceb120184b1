"""What a broker does with messages between publish and delivery: true of RabbitMQ, and so of the broker in memory."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock.errors import AccessRefused, BrokerError, TopologyMismatch, Unroutable
from penstock.message import Message
from penstock.ports import Link, Outlet
from penstock.topology.matching import matches
from penstock.topology.model import Binding, Topology
from penstock.topology.routing import Router
from tests.conformance.subjects import LinkBroker
from tests.support.inbox import PATIENCE, Inbox
from tests.support.topologies import exchange, queue, topology
from tests.support.waiting import eventually

SOON_MS = 300


class Station:
    """A link with an outlet and inboxes, on a subject that has the topology of the test."""

    def __init__(self, subject: LinkBroker, link: Link, outlet: Outlet) -> None:
        self.subject = subject
        self.link = link
        self.outlet = outlet

    async def publish(self, name: str, key: str, *bodies: bytes) -> None:
        """Publish a message of each of *bodies*, each confirmed."""
        for body in bodies or (b"{}",):
            await self.send(Message(body), name, key)

    async def send(self, message: Message, name: str, key: str) -> None:
        """Publish *message* and wait for the broker's answer."""
        await self.outlet.publish(message, name, key, asyncio.get_running_loop().time() + PATIENCE)

    async def read(self, name: str, number: int) -> list[bytes]:
        """Take *number* bodies from queue *name*, for good."""
        inbox = Inbox()
        subscription = await self.link.consume(name, 100, inbox, "reader")
        bodies = []
        for delivery in await inbox.take(number):
            bodies.append(delivery.message.body)
            subscription.ack(delivery)
        await subscription.close()
        return bodies

    async def depth_becomes(self, name: str, depth: int) -> None:
        """Wait until *depth* messages are ready in queue *name*."""

        async def reached() -> bool:
            return await self.link.depth(name) == depth

        await eventually(reached)


async def station(subject: LinkBroker, wanted: Topology) -> Station:
    """Declare *wanted* on *subject* and connect to it."""
    await subject.declare(wanted)
    link = await subject.broker.connect("conformance")
    return Station(subject, link, await link.outlet())


# Routing


async def test_a_topic_binding_takes_what_its_pattern_matches(link_broker: LinkBroker) -> None:
    patterns = ["#", "*", "a", "a.*", "*.a", "a.#", "#.a", "a.#.b", "*.#", "#.*.#", "a..b", "*.*.b", "#.a.#"]
    dice = random.Random(7)
    words = ["a", "b", "", "*", "#"]
    keys = {".".join(dice.choices(words, k=dice.randint(1, 4))) for _ in range(120)} - {""} | {"", "."}
    queues = [queue(f"q{number}") for number in range(len(patterns))]
    bindings = [Binding("topic", f"q{number}", pattern) for number, pattern in enumerate(patterns)]
    at = await station(link_broker, topology(exchange("topic"), *queues, *bindings))
    for key in sorted(keys):
        await at.publish("topic", key, key.encode())
    for number, pattern in enumerate(patterns):
        expected = sorted(key.encode() for key in keys if matches(pattern, key))
        assert sorted(await at.read(f"q{number}", len(expected))) == expected, pattern
        assert await at.link.depth(f"q{number}") == 0, pattern


async def test_two_bindings_that_fit_deliver_one_copy(link_broker: LinkBroker) -> None:
    parts = (exchange("in"), queue("q"), Binding("in", "q", "a.*"), Binding("in", "q", "*.b"))
    at = await station(link_broker, topology(*parts))
    await at.publish("in", "a.b")
    assert await at.link.depth("q") == 1


async def test_a_message_reaches_every_bound_queue(link_broker: LinkBroker) -> None:
    parts = (exchange("in"), queue("q"), queue("p"), Binding("in", "q", "a"), Binding("in", "p", "#"))
    at = await station(link_broker, topology(*parts))
    await at.publish("in", "a", b"both")
    assert await at.read("q", 1) == await at.read("p", 1) == [b"both"]


async def test_a_direct_exchange_takes_the_key_as_it_is(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(exchange("in", "direct"), queue("q"), Binding("in", "q", "a.*")))
    await at.publish("in", "a.*")
    with pytest.raises(Unroutable):
        await at.publish("in", "a.b")
    assert await at.link.depth("q") == 1


async def test_a_fanout_exchange_ignores_the_key(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(exchange("in", "fanout"), queue("q"), Binding("in", "q", "never")))
    await at.publish("in", "anything")
    assert await at.link.depth("q") == 1


async def test_the_default_exchange_reaches_the_queue_named_by_the_key(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q")))
    await at.publish("", "q")
    with pytest.raises(Unroutable):
        await at.publish("", "p")
    assert await at.link.depth("q") == 1


async def test_exchanges_bound_to_exchanges_pass_on_under_the_first_name(link_broker: LinkBroker) -> None:
    parts = (
        exchange("in"),
        exchange("next", internal=True),
        queue("q"),
        Binding("in", "next", "a.#", to_exchange=True),
        Binding("next", "q", "#.z"),
    )
    at = await station(link_broker, topology(*parts))
    await at.publish("in", "a.z")
    with pytest.raises(Unroutable):
        await at.publish("in", "a.y")
    inbox = Inbox()
    await at.link.consume("q", 10, inbox, "c")
    delivery = await inbox.next()
    assert (delivery.exchange, delivery.key, delivery.queue) == ("in", "a.z", "q")


async def test_exchanges_bound_in_a_circle_deliver_once(link_broker: LinkBroker) -> None:
    parts = (
        exchange("a"),
        exchange("b"),
        queue("q"),
        Binding("a", "b", "#", to_exchange=True),
        Binding("b", "a", "#", to_exchange=True),
        Binding("a", "q", "#"),
        Binding("b", "q", "#"),
    )
    at = await station(link_broker, topology(*parts))
    await at.publish("a", "x")
    assert await at.link.depth("q") == 1


async def test_what_no_binding_fits_goes_by_the_alternate_exchange(link_broker: LinkBroker) -> None:
    parts = (
        exchange("spare", "fanout", internal=True),
        exchange("in", alternate="spare"),
        queue("q"),
        queue("rest"),
        Binding("in", "q", "a"),
        Binding("spare", "rest", ""),
    )
    at = await station(link_broker, topology(*parts))
    await at.publish("in", "a", b"fits")
    await at.publish("in", "b", b"does not")
    inbox = Inbox()
    await at.link.consume("rest", 10, inbox, "c")
    delivery = await inbox.next()
    assert (delivery.message.body, delivery.exchange, delivery.key) == (b"does not", "in", "b")
    assert await at.read("q", 1) == [b"fits"]
    assert inbox.empty


async def test_a_binding_that_fits_keeps_the_alternate_exchange_out_even_at_a_dead_end(link_broker: LinkBroker) -> None:
    parts = (
        exchange("spare", "fanout"),
        exchange("in", alternate="spare"),
        exchange("dead.end"),
        queue("rest"),
        Binding("in", "dead.end", "a", to_exchange=True),
        Binding("spare", "rest", ""),
    )
    at = await station(link_broker, topology(*parts))
    with pytest.raises(Unroutable):
        await at.publish("in", "a")
    assert await at.link.depth("rest") == 0


async def test_an_exchange_reached_by_a_binding_has_its_own_alternate(link_broker: LinkBroker) -> None:
    parts = (
        exchange("spare", "fanout"),
        exchange("second", alternate="spare"),
        exchange("in"),
        queue("rest"),
        Binding("in", "second", "#", to_exchange=True),
        Binding("spare", "rest", ""),
    )
    at = await station(link_broker, topology(*parts))
    await at.publish("in", "a")
    assert await at.link.depth("rest") == 1


async def test_an_alternate_exchange_that_is_missing_changes_nothing(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(exchange("in", alternate="nowhere")))
    with pytest.raises(Unroutable):
        await at.publish("in", "a")


@pytest.mark.parametrize("seed", range(6))
async def test_any_network_of_exchanges_routes_as_the_router_says(link_broker: LinkBroker, seed: int) -> None:
    dice = random.Random(seed)
    net = network(dice)
    at = await station(link_broker, net)
    router = Router(net)
    expected: dict[str, list[bytes]] = {part.name: [] for part in net.queues}
    for number in range(40):
        name, key = dice.choice(net.exchanges).name, any_key(dice)
        reached = router.queues(name, key)
        with nullcontext() if reached else pytest.raises(Unroutable):
            await at.publish(name, key, b"%d" % number)
        for found in reached:
            expected[found].append(b"%d" % number)
    assert any(expected.values())
    assert {name: await at.read(name, len(bodies)) for name, bodies in expected.items()} == expected
    assert [await at.link.depth(name) for name in expected] == [0] * len(expected)


def network(dice: random.Random) -> Topology:
    """Four exchanges of any type, some with an alternate, tied to each other and to three queues."""
    names, queues = ["x", "y", "z", "in"], ["q0", "q1", "q2"]
    kinds = ["topic", "topic", "direct", "fanout"]
    exchanges = [exchange(name, dice.choice(kinds), alternate=dice.choice([None, *names])) for name in names]
    to_queues = [Binding(dice.choice(names), dice.choice(queues), any_key(dice)) for _ in range(4)]
    pairs = [dice.sample(names, 2) for _ in range(4)]
    to_exchanges = [Binding(source, to, any_key(dice), to_exchange=True) for source, to in pairs]
    return topology(*exchanges, *(queue(name) for name in queues), *to_queues, *to_exchanges)


def any_key(dice: random.Random) -> str:
    key = ".".join(dice.choices(["a", "b", "*", "#"], k=dice.randint(0, 3)))
    return "#.a.#" if key == "#.#.#" else key  # from 4.3.5 on a binding may have two # at most


# Publishing


async def test_an_unroutable_message_comes_back_and_the_outlet_lives(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(exchange("in"), queue("q"), Binding("in", "q", "a")))
    with pytest.raises(Unroutable):
        await at.publish("in", "b")
    await at.publish("in", "a")
    assert not at.outlet.lost.done()
    assert await at.link.depth("q") == 1


async def test_a_missing_exchange_ends_the_outlet(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology())
    with pytest.raises(TopologyMismatch):
        await at.publish("nowhere", "a")
    assert isinstance(await asyncio.wait_for(at.outlet.lost, PATIENCE), TopologyMismatch)
    assert not at.link.lost.done()


async def test_an_internal_exchange_refuses_publishers_and_ends_the_outlet(link_broker: LinkBroker) -> None:
    parts = (exchange("inside", internal=True), queue("q"), Binding("inside", "q", "#"))
    at = await station(link_broker, topology(*parts))
    with pytest.raises(AccessRefused):
        await at.publish("inside", "a")
    assert isinstance(await asyncio.wait_for(at.outlet.lost, PATIENCE), AccessRefused)


async def test_a_message_arrives_with_all_it_was_published_with(link_broker: LinkBroker) -> None:
    sent = Message(
        b'{"a": 1}',
        {"text": "ä", "whole": 7, "big": 2**40, "yes": True, "list": [1, "two"], "table": {"inner": "x"}},
        message_id="id",
        type="kind",
        content_encoding="identity",
        timestamp=1_700_000_000,
        app_id="app",
        correlation_id="c",
        reply_to="r",
    )
    at = await station(link_broker, topology(queue("q")))
    await at.send(sent, "", "q")
    inbox = Inbox()
    await at.link.consume("q", 1, inbox, "c")
    arrived = (await inbox.next()).message
    assert {name: arrived.headers[name] for name in sent.headers} == sent.headers
    arrived.headers = sent.headers
    assert arrived == sent


async def test_what_a_publisher_changes_afterwards_stays_with_the_publisher(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q")))
    message = Message(b"{}", {"list": [1]})
    answer = at.outlet.publish(message, "", "q", asyncio.get_running_loop().time() + PATIENCE)
    message.headers["list"].append(2)
    await answer
    inbox = Inbox()
    await at.link.consume("q", 1, inbox, "c")
    assert (await inbox.next()).message.headers["list"] == [1]


# Delivering


async def test_prefetch_bounds_what_is_unsettled_and_an_ack_makes_room(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q")))
    await at.publish("", "q", b"1", b"2", b"3", b"4")
    inbox = Inbox()
    subscription = await at.link.consume("q", 2, inbox, "c")
    first, _ = await inbox.take(2)
    assert await at.link.depth("q") == 2
    subscription.ack(first)
    assert (await inbox.next()).message.body == b"3"
    await at.depth_becomes("q", 1)
    assert inbox.empty


async def test_two_consumers_share_a_queue(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q")))
    inboxes = Inbox(), Inbox()
    for number, inbox in enumerate(inboxes):
        await at.link.consume("q", 2, inbox, f"c{number}")
    await at.publish("", "q", b"1", b"2", b"3", b"4")
    bodies = [delivery.message.body for inbox in inboxes for delivery in await inbox.take(2)]
    assert sorted(bodies) == [b"1", b"2", b"3", b"4"]


async def test_a_released_message_comes_again_before_newer_ones_and_says_so(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q")))
    await at.publish("", "q", b"1", b"2")
    inbox = Inbox()
    subscription = await at.link.consume("q", 1, inbox, "c")
    first = await inbox.next()
    assert not first.redelivered
    subscription.release(first)
    again = await inbox.next()
    assert (again.message.body, again.redelivered) == (b"1", True)


async def test_released_messages_come_again_in_the_order_of_their_release(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q")))
    await at.publish("", "q", b"1", b"2", b"3", b"4")
    inbox = Inbox()
    subscription = await at.link.consume("q", 3, inbox, "c")
    first, second, third = await inbox.take(3)
    await subscription.cancel()
    for delivery in (third, first, second):
        subscription.release(delivery)
    await at.depth_becomes("q", 4)
    assert await at.read("q", 4) == [b"3", b"1", b"2", b"4"]


async def test_closing_gives_everything_unsettled_back_in_order(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q")))
    await at.publish("", "q", b"1", b"2", b"3", b"4")
    inbox = Inbox()
    subscription = await at.link.consume("q", 3, inbox, "c")
    _, second, _ = await inbox.take(3)
    subscription.ack(second)
    await subscription.close()
    await at.depth_becomes("q", 3)
    assert await at.read("q", 3) == [b"1", b"3", b"4"]


async def test_closing_the_link_gives_everything_unsettled_back(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q")))
    await at.publish("", "q", b"1")
    other, inbox = await at.subject.broker.connect("other"), Inbox()
    await other.consume("q", 1, inbox, "c")
    await inbox.next()
    await other.close()
    await at.depth_becomes("q", 1)


async def test_after_a_cancel_nothing_comes_and_the_rest_can_be_settled(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q")))
    await at.publish("", "q", b"1")
    inbox = Inbox()
    subscription = await at.link.consume("q", 5, inbox, "c")
    held = await inbox.next()
    await subscription.cancel()
    await at.publish("", "q", b"2")
    assert await at.link.depth("q") == 1
    subscription.ack(held)
    await subscription.close()
    assert await at.read("q", 1) == [b"2"]
    assert inbox.empty


async def test_consuming_wider_leaves_what_is_outstanding_settleable(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q", limit=0, dead="letters"), exchange("letters", "fanout")))
    await at.publish("", "q", b"1", b"2", b"3")
    inbox = Inbox()
    subscription = await at.link.consume("q", 1, inbox, "c")
    first = await inbox.next()
    await subscription.widen(3)
    for delivery in (first, *await inbox.take(2)):
        subscription.ack(delivery)
    await subscription.close()
    await at.depth_becomes("q", 0)


async def test_a_missing_queue_cannot_be_consumed_or_measured(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology())
    with pytest.raises(TopologyMismatch):
        await at.link.consume("nowhere", 1, Inbox(), "c")
    with pytest.raises(TopologyMismatch):
        await at.link.depth("nowhere")
    assert not at.link.lost.done()


async def test_deleting_a_queue_ends_its_subscriptions(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q"), queue("p")))
    await at.publish("", "q")
    inbox = Inbox()
    subscription = await at.link.consume("q", 1, inbox, "c")
    held = await inbox.next()
    await at.subject.delete_queue("q")
    assert isinstance(await asyncio.wait_for(subscription.ended, PATIENCE), BrokerError)
    subscription.ack(held)
    await subscription.close()
    await at.publish("", "p")
    assert not at.link.lost.done()


# Dead-lettering

LETTERS = (exchange("letters"), queue("dead"), Binding("letters", "dead", "#"))


async def letter(at: Station) -> dict[str, Any]:
    """Take one dead letter and return its headers, with its exchange, key and body."""
    inbox = Inbox()
    subscription = await at.link.consume("dead", 1, inbox, "letters")
    delivery = await inbox.next()
    subscription.ack(delivery)
    await subscription.close()
    found = {"exchange": delivery.exchange, "key": delivery.key, "body": delivery.message.body}
    return {**delivery.message.headers, **found}


@pytest.mark.parametrize("safe", [True, False], ids=["at least once", "at most once"])
async def test_a_rejected_message_is_dead_lettered_with_its_story(link_broker: LinkBroker, safe: bool) -> None:
    parts = (exchange("in"), queue("q", dead="letters", safe=safe), Binding("in", "q", "#"))
    at = await station(link_broker, topology(*parts, *LETTERS))
    before = datetime.now(UTC)
    await at.send(Message(b"body", {"mine": "kept"}), "in", "a.b")
    inbox = Inbox()
    subscription = await at.link.consume("q", 1, inbox, "c")
    subscription.reject(await inbox.next())
    found = await letter(at)
    (death,) = found["x-death"]
    died = death.pop("time")
    assert death == {"count": 1, "reason": "rejected", "queue": "q", "exchange": "in", "routing-keys": ["a.b"]}
    assert abs(died - before) < timedelta(seconds=30)
    assert (found["exchange"], found["key"], found["body"]) == ("letters", "a.b", b"body")
    assert found["mine"] == "kept"
    assert found["x-first-death-reason"] == "rejected"
    assert found["x-first-death-queue"] == "q"
    assert found["x-first-death-exchange"] == "in"


async def test_a_dead_letter_key_replaces_the_key_and_the_story_keeps_the_old_one(link_broker: LinkBroker) -> None:
    parts = (exchange("in"), queue("q", dead="letters", dead_key="jobs.q"), Binding("in", "q", "#"))
    at = await station(link_broker, topology(*parts, *LETTERS))
    await at.publish("in", "a.b")
    inbox = Inbox()
    subscription = await at.link.consume("q", 1, inbox, "c")
    subscription.reject(await inbox.next())
    found = await letter(at)
    assert found["key"] == "jobs.q"
    assert found["x-death"][0]["routing-keys"] == ["a.b"]


async def test_a_rejected_message_without_dead_letter_exchange_is_gone(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q")))
    await at.publish("", "q", b"1", b"2")
    inbox = Inbox()
    subscription = await at.link.consume("q", 1, inbox, "c")
    subscription.reject(await inbox.next())
    subscription.ack(await inbox.next())
    await subscription.close()
    await at.depth_becomes("q", 0)


async def test_a_message_that_lost_its_consumer_more_often_than_the_limit_is_dead(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q", limit=2, dead="letters"), *LETTERS))
    await at.publish("", "q")
    counts = []
    for _ in range(3):
        inbox = Inbox()
        subscription = await at.link.consume("q", 1, inbox, "c")
        counts.append((await inbox.next()).deliveries)
        await subscription.close()
    found = await letter(at)
    assert counts == [0, 1, 2]
    assert found["x-first-death-reason"] == "delivery_limit"
    assert await at.link.depth("q") == 0


async def test_a_message_is_dead_lettered_when_its_time_is_up(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q", ttl_ms=SOON_MS, dead="letters"), *LETTERS))
    started = asyncio.get_running_loop().time()
    await at.publish("", "q")
    found = await letter(at)
    assert asyncio.get_running_loop().time() - started >= (SOON_MS - 1) / 1000  # brokers count whole milliseconds
    assert found["x-first-death-reason"] == "expired"
    assert found["x-death"][0]["exchange"] == ""


async def test_messages_expire_in_order(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(queue("q", ttl_ms=SOON_MS, dead="letters"), *LETTERS))
    bodies = [str(number).encode() for number in range(20)]
    await at.publish("", "q", *bodies)
    assert await at.read("dead", 20) == bodies


async def test_a_message_held_beyond_its_time_expires_when_it_is_given_back(link_broker: LinkBroker) -> None:
    parts = (queue("q", ttl_ms=SOON_MS, dead="letters"), queue("alarm", ttl_ms=2 * SOON_MS, dead="letters"))
    at = await station(link_broker, topology(*parts, *LETTERS))
    inbox, letters = Inbox(), Inbox()
    subscription = await at.link.consume("q", 1, inbox, "c")  # before there is anything whose time runs
    await at.publish("", "q", b"held")
    held = await inbox.next()
    await at.publish("", "alarm", b"later")
    await at.link.consume("dead", 10, letters, "letters")
    assert (await letters.next()).message.body == b"later"
    subscription.release(held)
    assert (await letters.next()).message.body == b"held"
    assert inbox.empty


async def test_a_message_with_two_deaths_tells_both_the_latest_first(link_broker: LinkBroker) -> None:
    parts = (
        exchange("hop"),
        queue("first", ttl_ms=SOON_MS, dead="hop"),
        queue("second", ttl_ms=SOON_MS, dead="letters"),
        Binding("hop", "second", "#"),
    )
    at = await station(link_broker, topology(*parts, *LETTERS))
    await at.publish("", "first")
    found = await letter(at)
    deaths = [(death["queue"], death["exchange"], death["count"]) for death in found["x-death"]]
    assert deaths == [("second", "hop", 1), ("first", "", 1)]
    assert found["x-first-death-queue"] == "first"


async def test_the_same_death_again_is_counted(link_broker: LinkBroker) -> None:
    at = await station(link_broker, topology(exchange("again"), queue("q", dead="again"), Binding("again", "q", "#")))
    await at.publish("", "q")
    inbox = Inbox()
    subscription = await at.link.consume("q", 1, inbox, "c")
    subscription.reject(await inbox.next())
    subscription.reject(await inbox.next())
    (death,) = (await inbox.next()).message.headers["x-death"]
    assert (death["count"], death["exchange"], death["routing-keys"]) == (2, "", ["q"])


async def test_an_expired_message_does_not_go_in_circles(link_broker: LinkBroker) -> None:
    parts = (
        exchange("again"),
        queue("q", ttl_ms=SOON_MS, dead="again", safe=False),
        Binding("again", "q", "#"),
        queue("witness"),
        Binding("again", "witness", "#"),
    )
    at = await station(link_broker, topology(*parts))
    await at.publish("", "q")
    await at.depth_becomes("witness", 1)
    assert await at.link.depth("q") == 0


async def test_a_rejection_on_the_way_makes_a_circle_a_new_journey(link_broker: LinkBroker) -> None:
    parts = (
        exchange("later"),
        exchange("again"),
        queue("q", dead="later"),
        queue("level", ttl_ms=SOON_MS, dead="again"),
        Binding("later", "level", "#"),
        Binding("again", "q", "#"),
    )
    at = await station(link_broker, topology(*parts))
    await at.publish("", "q")
    inbox = Inbox()
    subscription = await at.link.consume("q", 1, inbox, "c")
    for _ in range(2):
        subscription.reject(await inbox.next())
    deaths = (await inbox.next()).message.headers["x-death"]
    assert [(death["queue"], death["count"]) for death in deaths] == [("level", 2), ("q", 2)]


async def test_dead_letters_pass_internal_exchanges_and_use_alternates(link_broker: LinkBroker) -> None:
    parts = (
        exchange("spare", "fanout", internal=True),
        exchange("inside", internal=True, alternate="spare"),
        queue("q", ttl_ms=1, dead="inside"),
        queue("dead"),
        Binding("spare", "dead", ""),
    )
    at = await station(link_broker, topology(*parts))
    await at.publish("", "q")
    assert (await letter(at))["exchange"] == "inside"
