"""What every driver promises of links, outlets and subscriptions, beyond where messages go."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from penstock.errors import ConnectionLost, Unroutable
from penstock.headers import SEQ
from penstock.message import Delivery, Message
from penstock.ports import Link, Subscription
from penstock.topology.model import Binding
from tests.conformance.subjects import LinkBroker
from tests.support.inbox import PATIENCE, Inbox
from tests.support.topologies import exchange, queue, topology
from tests.support.waiting import eventually


async def linked(subject: LinkBroker, *names: str) -> Link:
    """A link to *subject*, on which queues *names* are declared."""
    await subject.declare(topology(*(queue(name) for name in names)))
    return await subject.broker.connect("conformance")


async def publish(link: Link, key: str, *messages: Message) -> None:
    """Publish *messages* by the default exchange, all in flight together, each confirmed."""
    outlet = await link.outlet()
    await asyncio.gather(*(outlet.publish(message, "", key, soon()) for message in messages))
    assert outlet.pending == 0
    await outlet.close()


def soon() -> float:
    return asyncio.get_running_loop().time() + PATIENCE


async def consumed(link: Link, name: str, number: int) -> tuple[Subscription, list[Delivery]]:
    """A subscription to queue *name* and its first *number* deliveries, unsettled."""
    inbox = Inbox()
    subscription = await link.consume(name, number, inbox, "c")
    return subscription, await inbox.take(number)


async def depth_is(link: Link, name: str, depth: int) -> None:
    async def reached() -> bool:
        return await link.depth(name) == depth

    await eventually(reached)


# Publishing


async def test_a_returned_message_is_told_from_its_twin_with_the_same_id(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    outlet = await link.outlet()
    keys = ["nowhere", "q", "q", "nowhere", "q"]
    answers = [outlet.publish(Message(b"{}", message_id="twin"), "", key, soon()) for key in keys]
    results = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(result) for result in results] == [Unroutable, type(None), type(None), Unroutable, type(None)]
    await depth_is(link, "q", 3)


async def test_an_unroutable_message_is_told_with_exchange_and_key(link_broker: LinkBroker) -> None:
    await link_broker.declare(topology(exchange("jobs")))
    outlet = await (await link_broker.broker.connect("conformance")).outlet()
    with pytest.raises(Unroutable, match=r"emial\.send.*jobs"):
        await outlet.publish(Message(b"{}"), "jobs", "emial.send", soon())


async def test_messages_of_one_outlet_arrive_in_the_order_of_publishing(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    bodies = [b"%d" % number for number in range(300)]
    await publish(link, "q", *(Message(body) for body in bodies))
    _, deliveries = await consumed(link, "q", 300)
    assert [delivery.message.body for delivery in deliveries] == bodies


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 1_000_000])
async def test_a_body_of_any_size_arrives_whole(link_broker: LinkBroker, size: int) -> None:
    link = await linked(link_broker, "q")
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    await publish(link, "q", Message(body), Message(b"next"))
    _, deliveries = await consumed(link, "q", 2)
    assert [delivery.message.body for delivery in deliveries] == [body, b"next"]


async def test_headers_of_every_type_come_back_equal(link_broker: LinkBroker) -> None:
    headers = {
        "text": "käse 🧀",
        "empty": "",
        "bytes": b"\x00\xff",
        "negative": -1,
        "large": 2**62,
        "yes": True,
        "no": False,
        "none": None,
        "float": 0.5,
        "decimal": Decimal("1.25"),
        "instant": datetime(2026, 8, 1, 12, 30, tzinfo=UTC),
        "array": [1, "two", [3.0], {"four": None}],
        "table": {"inner": {"deeper": [True]}},
    }
    link = await linked(link_broker, "q")
    await publish(link, "q", Message(b"{}", dict(headers)))
    _, (delivery,) = await consumed(link, "q", 1)
    arrived = delivery.message.headers
    arrived.pop(SEQ, None)
    assert arrived == headers
    assert {name: type(value) for name, value in arrived.items()} == {
        name: type(value) for name, value in headers.items()
    }


async def test_a_message_of_nothing_but_a_body_has_no_properties(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    await publish(link, "q", Message(b"{}", content_type=None))
    _, (delivery,) = await consumed(link, "q", 1)
    delivery.message.headers.pop(SEQ, None)
    assert delivery.message == Message(b"{}", content_type=None)


async def test_an_outlet_that_was_closed_takes_no_more(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    outlet = await link.outlet()
    await outlet.close()
    await outlet.close()
    assert isinstance(await asyncio.wait_for(outlet.lost, PATIENCE), ConnectionLost)
    with pytest.raises(ConnectionLost):
        await outlet.publish(Message(b"{}"), "", "q", soon())
    assert await link.depth("q") == 0


async def test_an_answer_nobody_waits_for_harms_nobody(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    outlet = await link.outlet()
    outlet.publish(Message(b"{}"), "", "nowhere", soon())
    outlet.publish(Message(b"{}"), "", "q", soon()).cancel()
    await outlet.publish(Message(b"{}"), "", "q", soon())
    await depth_is(link, "q", 2)


# Settling


async def test_settling_in_any_order_settles_everything_once(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    await publish(link, "q", *(Message(b"%d" % number) for number in range(60)))
    subscription, deliveries = await consumed(link, "q", 60)
    for stride in (3, 2, 1):
        for delivery in deliveries[::stride]:
            subscription.ack(delivery)
        await asyncio.sleep(0)  # the end of a loop turn: what is finished so far goes out
    await subscription.close()
    await depth_is(link, "q", 0)


async def test_only_the_first_settling_of_a_delivery_counts(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    await publish(link, "q", Message(b"acked"), Message(b"released"))
    subscription, (acked, released) = await consumed(link, "q", 2)
    for settle in (subscription.ack, subscription.ack, subscription.release, subscription.reject):
        settle(acked)
    await subscription.cancel()
    for settle in (subscription.release, subscription.ack, subscription.reject, subscription.release):
        settle(released)
    await depth_is(link, "q", 1)
    assert not subscription.ended.done()


async def test_a_released_message_goes_back_and_an_acked_one_does_not(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    await publish(link, "q", *(Message(body) for body in (b"1", b"2", b"3")))
    subscription, (first, second, third) = await consumed(link, "q", 3)
    await subscription.cancel()
    subscription.ack(first)
    subscription.release(second)
    subscription.ack(third)
    await subscription.close()
    _, (again,) = await consumed(link, "q", 1)
    assert (again.message.body, again.redelivered) == (b"2", True)


async def test_a_rejected_message_is_dead_lettered(link_broker: LinkBroker) -> None:
    parts = (exchange("letters", "fanout"), queue("dead"), queue("q", dead="letters"))
    await link_broker.declare(topology(*parts, Binding("letters", "dead", "")))
    link = await link_broker.broker.connect("conformance")
    await publish(link, "q", Message(b"bad", message_id="id"))
    subscription, (bad,) = await consumed(link, "q", 1)
    subscription.reject(bad)
    _, (letter,) = await consumed(link, "dead", 1)
    assert (letter.message.body, letter.message.message_id) == (b"bad", "id")


async def test_a_delivery_of_another_subscription_is_left_alone(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q", "p")
    await publish(link, "q", Message(b"mine"))
    await publish(link, "p", Message(b"other"))
    mine, (delivery,) = await consumed(link, "q", 1)
    other, (foreign,) = await consumed(link, "p", 1)
    assert delivery.tag == foreign.tag
    mine.ack(foreign)
    await mine.close()
    await other.close()
    await depth_is(link, "q", 1)
    await depth_is(link, "p", 1)


async def test_settling_after_the_end_does_nothing(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    await publish(link, "q", Message(b"1"), Message(b"2"), Message(b"3"))
    subscription, (first, second, third) = await consumed(link, "q", 3)
    await subscription.close()
    subscription.ack(first)
    subscription.release(second)
    subscription.reject(third)
    await depth_is(link, "q", 3)
    assert not link.lost.done()


async def test_acks_of_the_same_turn_are_sent_before_the_subscription_closes(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    await publish(link, "q", Message(b"1"), Message(b"2"))
    subscription, (first, _) = await consumed(link, "q", 2)
    subscription.ack(first)
    await subscription.close()
    await depth_is(link, "q", 1)


async def test_acks_of_the_same_turn_are_sent_before_the_link_closes(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    await publish(link, "q", Message(b"1"), Message(b"2"))
    other = await link_broker.broker.connect("other")
    subscription, (first, _) = await consumed(other, "q", 2)
    subscription.ack(first)
    await other.close()
    await depth_is(link, "q", 1)


# Ends


async def test_the_prefetch_holds_after_widening(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    await publish(link, "q", *(Message(b"{}") for _ in range(10)))
    inbox = Inbox()
    subscription = await link.consume("q", 1, inbox, "c")
    subscription.ack(await inbox.next())
    await subscription.widen(4)
    await inbox.take(4)
    assert 10 - 1 - await link.depth("q") in (4, 5)  # one may have come by the narrow consumer before
    await subscription.widen(2)
    assert not subscription.ended.done()


async def test_widening_with_the_first_ack_hands_nothing_over_that_comes_again(link_broker: LinkBroker) -> None:
    """Otherwise each start of a worker would count as a death of the next message's worker."""
    names = [f"q{number}" for number in range(12)]
    link = await linked(link_broker, *names)
    for name in names:
        await publish(link, name, *(Message(b"{}") for _ in range(4)))
    seen: list[tuple[bool, int]] = []
    for name in names:
        inbox = Inbox()
        subscription = await link.consume(name, 1, inbox, name)
        subscription.ack(await inbox.next())
        await subscription.widen(3)
        seen += [(delivery.redelivered, delivery.deliveries) for delivery in await inbox.take(3)]
    assert seen == [(False, 0)] * 36
    await link.close()


async def test_ending_anything_twice_is_ending_it_once(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    subscription = await link.consume("q", 1, Inbox(), "c")
    await asyncio.gather(subscription.cancel(), subscription.cancel())
    await subscription.widen(5)
    await asyncio.gather(subscription.close(), subscription.close())
    await subscription.cancel()
    assert isinstance(subscription.ended.result(), ConnectionLost)
    await asyncio.gather(link.close(), link.close())
    await link.close()
    assert isinstance(link.lost.result(), ConnectionLost)


async def test_closing_a_link_ends_what_was_opened_on_it(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    outlet, subscription = await link.outlet(), await link.consume("q", 1, Inbox(), "c")
    await link.close()
    for end in (link.lost, outlet.lost, subscription.ended):
        assert isinstance(await asyncio.wait_for(end, PATIENCE), ConnectionLost)


async def test_on_a_closed_link_nothing_can_be_opened(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q")
    await link.close()
    for opening in (link.outlet(), link.consume("q", 1, Inbox(), "c"), link.depth("q")):
        with pytest.raises(ConnectionLost):
            await opening


async def test_nothing_is_settled_under_a_queue_that_was_deleted(link_broker: LinkBroker) -> None:
    link = await linked(link_broker, "q", "p")
    await publish(link, "q", Message(b"1"), Message(b"2"))
    subscription, (first, second) = await consumed(link, "q", 2)
    subscription.ack(first)
    await link_broker.delete_queue("q")
    await asyncio.wait_for(subscription.ended, PATIENCE)
    subscription.ack(second)
    await subscription.close()
    assert await link.depth("p") == 0
    assert not link.lost.done()
