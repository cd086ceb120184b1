"""The pika driver against a scripted peer: what a broker or a network does seldom, and what goes over the wire."""

from __future__ import annotations

import asyncio
import gc
import logging
import struct
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from pika import frame, spec
from pika.adapters.utils.nbio_interface import AbstractStreamTransport

from penstock.brokers.pika_driver import PikaBroker, PikaLink
from penstock.errors import (
    AccessRefused,
    BrokerError,
    ConnectionLost,
    Nacked,
    TopologyMismatch,
    Unconfirmed,
    Unroutable,
)
from penstock.headers import SEQ
from penstock.message import Delivery, Message
from penstock.ports import Subscription
from tests.support.amqp_peer import Peer, amqp_peer
from tests.support.inbox import PATIENCE, Inbox
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("nothing_is_logged")


@pytest.fixture
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> object:
    """A driver that fails quietly: neither pika nor the loop logs a word."""
    with caplog.at_level(logging.DEBUG, logger="asyncio"):
        yield
    said = [record for record in caplog.get_records("call") if record.name.startswith(("pika", "asyncio"))]
    assert not [record.getMessage() for record in said if "Using selector" not in record.getMessage()]


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A peer nobody has connected to."""
    async with amqp_peer() as peer:
        yield peer


@pytest.fixture
async def link(peer: Peer) -> AsyncIterator[PikaLink]:
    """A link to the peer."""
    link = await PikaBroker(peer.url).connect("wire")
    yield link
    link.abort()
    await ended(link.lost)


def soon(seconds: float = PATIENCE) -> float:
    return asyncio.get_running_loop().time() + seconds


def transport_of(link: PikaLink) -> AbstractStreamTransport:
    transport = link._wire._transport
    assert transport is not None
    return transport


async def ended(end: asyncio.Future[BrokerError]) -> BrokerError:
    return await asyncio.wait_for(asyncio.shield(end), PATIENCE)


async def refusal(peer: Peer, within: float = 5.0) -> BrokerError:
    """What connecting to the peer fails with, told in one line without the password."""
    with pytest.raises(BrokerError) as caught:
        await PikaBroker(peer.url, connect_timeout=timedelta(seconds=within)).connect("wire")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    return caught.value


# Connecting


async def test_a_server_that_accepts_and_says_nothing_is_given_up_in_time(peer: Peer) -> None:
    peer.greeting = None
    started = time.monotonic()
    error = await refusal(peer, within=0.3)
    assert type(error) is ConnectionLost
    assert "no connection within 0.3 s" in str(error)
    assert time.monotonic() - started < 10


async def test_a_server_that_hangs_in_the_tls_handshake_is_given_up_in_time(peer: Peer) -> None:
    peer.url = peer.url.replace("amqp:", "amqps:")
    peer.greeting = None
    assert "no connection within 0.3 s" in str(await refusal(peer, within=0.3))


async def test_a_broker_that_hangs_in_the_handshake_is_given_up_in_time(peer: Peer) -> None:
    del peer.answers[spec.Connection.Open]
    assert "no connection within 0.3 s" in str(await refusal(peer, within=0.3))


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x01\x00\x00" + b"\xff" * 20])
async def test_a_server_of_another_protocol_is_told_so(peer: Peer, greeting: bytes) -> None:
    peer.greeting = greeting
    error = await refusal(peer)
    assert type(error) is ConnectionLost
    assert "no AMQP 0-9-1 broker" in str(error)


async def test_a_connection_that_breaks_during_the_login_may_be_tried_again(peer: Peer) -> None:
    def hang_up(_: object) -> None:
        peer.hang_up()

    peer.answers[spec.Connection.StartOk] = hang_up
    assert type(await refusal(peer)) is ConnectionLost


async def test_a_refused_login_is_told_at_once(peer: Peer) -> None:
    words = "ACCESS_REFUSED - Login was refused"
    peer.answers[spec.Connection.StartOk] = lambda _: spec.Connection.Close(403, words, 0, 0)
    assert type(await refusal(peer)) is AccessRefused


async def test_giving_up_connecting_leaves_no_connection_behind(peer: Peer) -> None:
    del peer.answers[spec.Connection.Open]
    connecting = asyncio.create_task(PikaBroker(peer.url).connect("wire"))
    await peer.saw(spec.Connection.Open)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting


async def test_the_broker_is_told_who_connects(peer: Peer, link: PikaLink) -> None:
    (start_ok,) = peer.named(spec.Connection.StartOk)
    assert start_ok.client_properties["connection_name"] == "wire"
    assert start_ok.client_properties["product"] == "Penstock"
    (tune_ok,) = peer.named(spec.Connection.TuneOk)
    assert (tune_ok.heartbeat, link.blocked) == (10, False)


# Losing the connection


async def test_a_broker_that_falls_silent_is_noticed_by_its_heartbeat(peer: Peer) -> None:
    link = await PikaBroker(peer.url, heartbeat=timedelta(seconds=1)).connect("wire")
    # A loop that stands still meanwhile, as it may on a busy machine, gives the broker its time anew.
    assert "no heartbeat" in str(await asyncio.wait_for(asyncio.shield(link.lost), 60))


async def test_a_connection_cut_in_flight_leaves_every_outcome_unknown(peer: Peer, link: PikaLink) -> None:
    outlet, inbox = await link.outlet(), Inbox()
    subscription = await link.consume("q", 1, inbox, "c")
    answers = [outlet.publish(Message(b"{}"), "jobs", "a", soon()) for _ in range(3)]
    await peer.saw(spec.Basic.Publish, 3)
    peer.hang_up()
    results = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionLost] * 3
    assert "may or may not be on the broker" in str(results[0])
    assert {type(await ended(end)) for end in (link.lost, outlet.lost, subscription.ended)} == {ConnectionLost}


async def test_bytes_that_are_no_frames_end_the_link_only(peer: Peer, link: PikaLink) -> None:
    peer.send_raw(b"\x01\x00\x00\x00\x00\x00\x01\x00\x00")
    assert type(await ended(link.lost)) is ConnectionLost


async def test_a_broker_that_closes_the_connection_is_quoted(peer: Peer, link: PikaLink) -> None:
    peer.send(0, spec.Connection.Close(320, "CONNECTION_FORCED - Closed via management plugin", 0, 0))
    assert "Closed via management plugin (320)" in str(await ended(link.lost))


async def test_a_broker_that_does_not_say_goodbye_does_not_hold_up_closing(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.brokers.pika_driver._CLOSE_WITHIN", 0.2)
    link = await PikaBroker(peer.url).connect("wire")
    del peer.answers[spec.Connection.Close]
    await asyncio.wait_for(link.close(), PATIENCE)
    assert type(await ended(link.lost)) is ConnectionLost


async def test_a_broker_that_blocks_us_does_not_hold_up_closing(peer: Peer, link: PikaLink) -> None:
    outlet = await link.outlet()
    peer.send(0, spec.Connection.Blocked("low on memory"))
    await eventually(lambda: link.blocked)
    peer.stop_reading()
    async with asyncio.timeout(4):
        await outlet.close()
        await link.close()
    assert type(link.lost.result()) is ConnectionLost


async def test_a_transport_that_is_closed_without_a_word_ends_the_link(link: PikaLink) -> None:
    transport_of(link).close()
    assert type(await ended(link.lost)) is ConnectionLost


async def test_a_call_the_broker_does_not_answer_fails_in_time(
    peer: Peer, link: PikaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.brokers.channels.ANSWER_WITHIN", 2)
    del peer.answers[spec.Confirm.Select]
    with pytest.raises(ConnectionLost, match=r"no answer to confirm\.select"):
        await link.outlet()


async def test_a_callback_that_raises_ends_the_link_and_says_why(peer: Peer, link: PikaLink) -> None:
    def broken(_: Delivery) -> None:
        raise KeyError("slot")

    await link.consume("q", 1, broken, "c")
    deliver(peer, 1)
    assert "slot" in str(await ended(link.lost))


# Publishing


async def test_no_answer_by_the_deadline_is_an_unknown_outcome_and_a_late_answer_is_nobodys(
    peer: Peer, link: PikaLink
) -> None:
    outlet = await link.outlet()
    with pytest.raises(Unconfirmed, match="may or may not be on the broker"):
        await outlet.publish(Message(b"{}"), "jobs", "a", soon(0.05))
    assert outlet.pending == 0
    peer.send(1, spec.Basic.Ack(1))
    second = outlet.publish(Message(b"{}"), "jobs", "a", soon())
    await peer.saw(spec.Basic.Publish, 2)
    assert not second.done()
    peer.send(1, spec.Basic.Ack(2))
    await second


async def test_each_publish_meets_its_own_deadline(peer: Peer, link: PikaLink) -> None:
    outlet = await link.outlet()
    peer.answers.clear()
    late = outlet.publish(Message(b"{}"), "jobs", "a", soon())
    deadlines = [soon(0.1), soon(0.2)]
    early, middle = (outlet.publish(Message(b"{}"), "jobs", "a", deadline) for deadline in deadlines)
    failed: list[float] = []
    for answer, deadline in zip((early, middle), deadlines, strict=True):
        with pytest.raises(Unconfirmed):
            await answer
        failed.append(asyncio.get_running_loop().time() - deadline)
    assert min(failed) >= 0
    assert (late.done(), outlet.pending) == (False, 1)


async def test_one_answer_can_settle_many(peer: Peer, link: PikaLink) -> None:
    outlet = await link.outlet()
    answers = [outlet.publish(Message(b"{}"), "jobs", "a", soon()) for _ in range(9)]
    await peer.saw(spec.Basic.Publish, 9)
    peer.send(1, spec.Basic.Ack(2), spec.Basic.Nack(4, multiple=True), spec.Basic.Ack(8, multiple=True))
    await asyncio.wait(answers[:8], timeout=PATIENCE)
    failed = [type(answer.exception()) for answer in answers[:8]]
    assert failed == [Nacked, type(None), Nacked, Nacked, *[type(None)] * 4]
    assert (answers[8].done(), outlet.pending) == (False, 1)


async def test_a_return_is_matched_by_its_number(peer: Peer, link: PikaLink) -> None:
    outlet = await link.outlet()
    first, second = (outlet.publish(Message(b"{}", message_id="twin"), "jobs", "a", soon()) for _ in range(2))
    await peer.saw(spec.Basic.Publish, 2)
    returned = spec.Basic.Return(312, "NO_ROUTE", "jobs", "a")
    number = bytes([len(SEQ)]) + SEQ.encode() + b"l" + struct.pack(">q", 2)
    peer.send_content(1, returned, struct.pack(">HI", 1 << 13, len(number)) + number, b"{}")
    peer.send(1, spec.Basic.Ack(2, multiple=True))
    await first
    with pytest.raises(Unroutable):
        await second


async def test_a_channel_that_is_closed_blames_the_publish_it_names(peer: Peer, link: PikaLink) -> None:
    outlet = await link.outlet()
    answers = [outlet.publish(Message(b"{}"), name, "a", soon()) for name in ("jobs", "nowhere", "jobs")]
    await peer.saw(spec.Basic.Publish, 3)
    peer.send(1, spec.Channel.Close(404, "NOT_FOUND - no exchange 'nowhere' in vhost '/'", 60, 40))
    results = await asyncio.gather(*answers, return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionLost, TopologyMismatch, ConnectionLost]
    assert type(await ended(outlet.lost)) is TopologyMismatch
    with pytest.raises(ConnectionLost, match="was not sent"):
        await outlet.publish(Message(b"{}"), "jobs", "a", soon())
    assert len(peer.named(spec.Basic.Publish)) == 3
    assert not link.lost.done()


async def test_nothing_is_written_to_a_channel_that_is_closed(peer: Peer, link: PikaLink) -> None:
    outlet = await link.outlet()
    link._wire.data_received(frame.Method(1, spec.Channel.Close(406, "PRECONDITION_FAILED - x", 60, 40)).marshal())
    with pytest.raises(ConnectionLost, match="was not sent"):
        await outlet.publish(Message(b"{}"), "jobs", "a", soon())
    await peer.saw(spec.Channel.CloseOk)
    assert peer.named(spec.Basic.Publish) == []


async def test_a_failure_nobody_waits_for_is_not_reported_by_the_loop(peer: Peer, link: PikaLink) -> None:
    outlet = await link.outlet()
    outlet.publish(Message(b"{}"), "jobs", "a", soon())
    await peer.saw(spec.Basic.Publish)
    peer.send(1, spec.Basic.Nack(1))
    await eventually(lambda: outlet.pending == 0)
    gc.collect()  # the loop would complain now; the fixture listens


async def test_nothing_is_written_while_the_broker_blocks(peer: Peer, link: PikaLink) -> None:
    outlet = await link.outlet()
    peer.send(0, spec.Connection.Blocked("low on memory"))
    await eventually(lambda: link.blocked)
    dead = outlet.publish(Message(b"{}", type="dead"), "jobs", "a", soon(0.1))
    kept = [outlet.publish(Message(b"{}", type=f"kept {n}"), "jobs", "a", soon()) for n in range(3)]
    assert outlet.pending == 4
    with pytest.raises(Unconfirmed, match="was not sent"):
        await dead
    assert peer.named(spec.Basic.Publish) == []
    peer.send(0, spec.Connection.Unblocked())
    await peer.saw(spec.Basic.Publish, 3)
    peer.send(1, spec.Basic.Ack(3, multiple=True))
    await asyncio.gather(*kept)
    assert [header.properties.type for header in peer.headers] == ["kept 0", "kept 1", "kept 2"]
    assert [header.properties.headers[SEQ] for header in peer.headers] == [1, 2, 3]


async def test_what_was_held_when_the_channel_went_was_certainly_not_sent(peer: Peer, link: PikaLink) -> None:
    outlet = await link.outlet()
    peer.send(0, spec.Connection.Blocked("low on memory"))
    await eventually(lambda: link.blocked)
    held = outlet.publish(Message(b"{}"), "jobs", "a", soon())
    await outlet.close()
    with pytest.raises(ConnectionLost, match="was not sent"):
        await held


@pytest.mark.parametrize("turns", [0, 100, 200])
async def test_a_peer_that_reads_no_more_stops_the_writing_not_the_order(
    peer: Peer, link: PikaLink, turns: int
) -> None:
    outlet = await link.outlet()
    peer.stop_reading()
    answers = []
    for number in range(200):
        answers.append(outlet.publish(Message(b"x" * 100_000), "jobs", "a", soon()))
        if number < turns:
            await asyncio.sleep(0)
    assert outlet.pending == 200
    for _ in range(5):
        await asyncio.sleep(0)
    assert transport_of(link).get_write_buffer_size() < 2 * 1024 * 1024  # of the 20 MB that wait
    peer.go_on_reading()
    await peer.saw(spec.Basic.Publish, 200)
    peer.send(1, spec.Basic.Ack(200, multiple=True))
    await asyncio.gather(*answers)
    assert [header.properties.headers[SEQ] for header in peer.headers] == list(range(1, 201))


async def test_publishes_of_one_turn_leave_in_one_write(peer: Peer, link: PikaLink) -> None:
    outlet = await link.outlet()
    peer.reads.clear()
    for _ in range(50):
        outlet.publish(Message(b"{}"), "jobs", "a", soon())
    await peer.saw(spec.Basic.Publish, 50)
    assert len(peer.reads) == 1


# Consuming


def deliver(peer: Peer, *tags: int, channel: int = 1, consumer: str = "c") -> None:
    for tag in tags:
        peer.send_content(channel, spec.Basic.Deliver(consumer, tag, False, "jobs", "a"), struct.pack(">H", 0), b"{}")


async def consuming(link: PikaLink, peer: Peer, *tags: int) -> tuple[Subscription, list[Delivery], Inbox]:
    inbox = Inbox()
    subscription = await link.consume("q", 100, inbox, "c")
    deliver(peer, *tags)
    return subscription, await inbox.take(len(tags)), inbox


async def acks(peer: Peer, number: int) -> list[tuple[int, bool]]:
    return [(ack.delivery_tag, ack.multiple) for ack in await peer.saw(spec.Basic.Ack, number)]


async def test_what_is_finished_in_one_turn_is_acked_by_one_frame(peer: Peer, link: PikaLink) -> None:
    subscription, deliveries, _ = await consuming(link, peer, *range(1, 8))
    for delivery in (deliveries[i] for i in (2, 0, 1, 4)):
        subscription.ack(delivery)
    assert await acks(peer, 2) == [(3, True), (5, False)]
    for delivery in (deliveries[i] for i in (3, 5)):
        subscription.ack(delivery)
    assert (await acks(peer, 3))[2] == (6, True)
    subscription.ack(deliveries[6])
    assert (await acks(peer, 4))[3] == (7, False)


async def test_acks_of_remembered_jobs_wait_for_one_another_until_a_third_of_the_window_is_done(
    peer: Peer, link: PikaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.brokers.pika_subscription._LINGER", 60)
    subscription, deliveries, _ = await consuming(link, peer, *range(1, 101))
    for delivery in deliveries[:31]:
        delivery.remembered = True
        subscription.ack(delivery)
        await asyncio.sleep(0)
    assert peer.named(spec.Basic.Ack) == []
    deliveries[31].remembered = True
    subscription.ack(deliveries[31])
    assert await acks(peer, 1) == [(32, True)]


async def test_an_ack_that_waits_for_others_goes_out_by_itself_soon_or_with_whatever_else_is_settled(
    peer: Peer, link: PikaLink
) -> None:
    subscription, (first, second, third, fourth), _ = await consuming(link, peer, 1, 2, 3, 4)
    first.remembered = second.remembered = fourth.remembered = True
    subscription.ack(first)
    assert await acks(peer, 1) == [(1, False)]
    subscription.ack(second)
    subscription.ack(third)
    assert (await acks(peer, 2))[1:] == [(3, True)]
    subscription.ack(fourth)
    await subscription.close()
    assert (await acks(peer, 3))[2:] == [(4, False)]


async def test_acks_go_out_before_a_release_of_the_same_turn(peer: Peer, link: PikaLink) -> None:
    subscription, (first, second, third), _ = await consuming(link, peer, 1, 2, 3)
    subscription.ack(first)
    subscription.release(second)
    subscription.reject(third)
    await peer.saw(spec.Basic.Nack, 2)
    answers = [method for _, method in peer.calls if isinstance(method, (spec.Basic.Ack, spec.Basic.Nack))]
    assert [method.delivery_tag for method in answers] == [1, 2, 3]
    assert [method.requeue for method in answers if isinstance(method, spec.Basic.Nack)] == [True, False]


async def test_widening_consumes_again_under_a_new_tag_with_the_new_prefetch(peer: Peer, link: PikaLink) -> None:
    subscription, (first,), inbox = await consuming(link, peer, 1)
    await subscription.widen(32)
    first_tag, second_tag = (call.consumer_tag for call in peer.named(spec.Basic.Consume))
    assert first_tag != second_tag
    assert [call.prefetch_count for call in peer.named(spec.Basic.Qos)] == [100, 32]
    assert {channel for channel, call in peer.calls if isinstance(call, spec.Basic.Consume)} == {1}
    deliver(peer, 2, consumer=second_tag)
    subscription.ack(first)
    subscription.ack(await inbox.next())
    assert (await acks(peer, 1))[-1][0] == 2


async def test_a_cancel_from_the_broker_ends_the_subscription_and_nothing_more_is_acked(
    peer: Peer, link: PikaLink
) -> None:
    subscription, (first, second), _ = await consuming(link, peer, 1, 2)
    subscription.ack(first)
    await peer.saw(spec.Basic.Ack)
    peer.send(1, spec.Basic.Cancel("c", True))
    reason = await ended(subscription.ended)
    assert "which still exists" in str(reason)
    subscription.ack(second)
    await subscription.close()
    assert len(peer.named(spec.Basic.Ack)) == 1
    assert len(peer.named(spec.Channel.Close)) == 2  # the consumer's own, and that of the look at the queue
    assert not link.lost.done()


async def test_what_comes_after_a_cancel_from_the_broker_is_not_handed_on(peer: Peer, link: PikaLink) -> None:
    subscription, _, inbox = await consuming(link, peer, 1)
    del peer.answers[spec.Channel.Close]
    peer.send(1, spec.Basic.Cancel("c", True))
    deliver(peer, 2)
    await ended(subscription.ended)
    assert inbox.empty


async def test_a_consumer_timeout_is_told_as_one(peer: Peer, link: PikaLink) -> None:
    subscription, _, _ = await consuming(link, peer, 1)
    words = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms"
    peer.send(1, spec.Channel.Close(406, words, 0, 0))
    assert "consumer timeout took a delivery back" in str(await ended(subscription.ended))


async def test_a_cancel_the_broker_does_not_answer_ends_the_subscription(
    peer: Peer, link: PikaLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription, _, _ = await consuming(link, peer, 1)
    monkeypatch.setattr("penstock.brokers.channels.ANSWER_WITHIN", 0.2)
    del peer.answers[spec.Basic.Cancel]
    await subscription.cancel()
    assert "no answer to basic.cancel" in str(await ended(subscription.ended))


@pytest.mark.parametrize("step", [1, 7, 4096])
async def test_frames_cut_anywhere_are_put_together(peer: Peer, link: PikaLink, step: int) -> None:
    inbox, sent = Inbox(), bytearray()
    await link.consume("q", 100, inbox, "c")
    send, peer.send_raw = peer.send_raw, lambda data: sent.extend(data)  # type: ignore[method-assign]
    deliver(peer, 1, 2)
    peer.send_raw = send  # type: ignore[method-assign]
    for at in range(0, len(sent), step):
        link._wire.data_received(bytes(sent[at : at + step]))
    assert [delivery.tag for delivery in await inbox.take(2)] == [1, 2]


async def test_deliveries_nobody_asked_for_harm_nobody(peer: Peer, link: PikaLink) -> None:
    subscription, _, inbox = await consuming(link, peer, 1)
    await subscription.close()
    deliver(peer, 2)
    assert await link.depth("q") == 5
    assert inbox.empty
    assert not link.lost.done()
