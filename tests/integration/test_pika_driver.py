"""The pika driver against a real broker: logins, refusals, alarms, TLS, and what foreign producers do to properties."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from penstock.brokers.pika_driver import PikaBroker, PikaLink
from penstock.errors import (
    AccessRefused,
    BrokerError,
    ConnectionLost,
    Nacked,
    TooLarge,
    TopologyMismatch,
    Unconfirmed,
    Unencodable,
)
from penstock.message import Delivery, Message
from penstock.testing.broker_node import BrokerInfo
from penstock.testing.free_ports import free_ports
from penstock.topology.model import Binding, Queue
from tests.conformance.pika_subject import PikaSubject
from tests.integration.conftest import Fragile
from tests.support.brokers import Vhost, manage, quoted
from tests.support.inbox import PATIENCE, Inbox
from tests.support.raw_amqp import APP_ID, CONTENT_TYPE, HEADERS, MESSAGE_ID, TIMESTAMP, TYPE, RawPublisher
from tests.support.topologies import exchange, queue, topology
from tests.support.waiting import eventually


def soon(seconds: float = PATIENCE) -> float:
    return asyncio.get_running_loop().time() + seconds


@contextmanager
def user(vhost: Vhost, permissions: str | None = ".*", topic: tuple[str, str] | None = None) -> Iterator[str]:
    """The URL of a user of its own: no *permissions* at all, or all of them but those a *topic* permission denies."""
    name, password = f"user-{vhost.name}", "secret"
    manage(vhost.broker, "PUT", f"/api/users/{name}", {"password": password, "tags": ""})
    if permissions is not None:
        rights = dict.fromkeys(("configure", "write", "read"), permissions)
        manage(vhost.broker, "PUT", f"/api/permissions/{vhost.name}/{name}", rights)
    if topic is not None:
        rule = {"exchange": topic[0], "write": topic[1], "read": ".*"}
        manage(vhost.broker, "PUT", f"/api/topic-permissions/{vhost.name}/{name}", rule)
    yield f"amqp://{name}:{password}@127.0.0.1:{vhost.broker.ports.amqp}/{vhost.name}"
    manage(vhost.broker, "DELETE", f"/api/users/{name}")


async def refusal(url: str) -> BrokerError:
    with pytest.raises(BrokerError) as caught:
        await PikaBroker(url, connect_timeout=timedelta(seconds=30)).connect("test")
    assert "\n" not in str(caught.value)
    assert "***@" in str(caught.value)
    return caught.value


@pytest.fixture
async def link(vhost_url: str) -> AsyncIterator[PikaLink]:
    """A link to a fresh virtual host."""
    link = await PikaBroker(vhost_url, connect_timeout=timedelta(seconds=30)).connect("test")
    yield link
    await link.close()


# Connecting


async def test_a_wrong_password_is_refused_without_being_shown(vhost: Vhost) -> None:
    error = await refusal(vhost.url.replace(vhost.broker.password, "not-the-password"))
    assert type(error) is AccessRefused
    assert "Login was refused" in str(error)
    assert "not-the-password" not in str(error)


async def test_a_virtual_host_that_is_missing_is_refused(broker: BrokerInfo) -> None:
    error = await refusal(broker.url_for("nowhere"))
    assert type(error) is AccessRefused
    assert "vhost nowhere not found" in str(error)


async def test_a_virtual_host_without_permission_is_refused(vhost: Vhost) -> None:
    with user(vhost, permissions=None) as url:
        assert type(await refusal(url)) is AccessRefused


async def test_a_broker_that_is_not_there_may_be_tried_again() -> None:
    error = await refusal(f"amqp://guest:guest@127.0.0.1:{free_ports(1)[0]}/")
    assert type(error) is ConnectionLost
    assert "cannot be reached" in str(error)


async def test_the_management_interface_shows_the_connection_by_its_name(vhost: Vhost, link: PikaLink) -> None:
    def names() -> list[str]:
        shown = manage(vhost.broker, "GET", f"/api/vhosts/{vhost.name}/connections")
        return [connection.get("user_provided_name") for connection in shown]

    await eventually(lambda: names() == ["test"], within=15)
    assert not link.lost.done()


async def test_a_connection_the_operator_closes_is_lost_and_says_why(vhost: Vhost, link: PikaLink) -> None:
    outlet = await link.outlet()

    def close() -> bool:
        shown = manage(vhost.broker, "GET", f"/api/vhosts/{vhost.name}/connections")
        for connection in shown:
            manage(vhost.broker, "DELETE", f"/api/connections/{quoted(connection['name'])}")
        return bool(shown)

    await eventually(close, within=15)
    reason = await asyncio.wait_for(link.lost, PATIENCE)
    assert type(reason) is ConnectionLost
    assert "management" in str(reason)
    assert type(outlet.lost.result()) is ConnectionLost


# Publishing


async def test_a_full_queue_refuses_and_the_outlet_lives(vhost_url: str, link: PikaLink) -> None:
    full = Queue("full", {"x-max-length": 1, "x-overflow": "reject-publish"})
    await PikaSubject(vhost_url).declare(topology(full))
    outlet = await link.outlet()
    await outlet.publish(Message(b"{}"), "", "full", soon())
    with pytest.raises(Nacked, match="'full'"):
        await outlet.publish(Message(b"{}"), "", "full", soon())
    assert not outlet.lost.done()


async def test_a_missing_exchange_is_blamed_on_its_own_publish(vhost_url: str, link: PikaLink) -> None:
    await PikaSubject(vhost_url).declare(topology(queue("q")))
    outlet = await link.outlet()
    where = [("", "q"), ("nowhere", "a"), ("", "q")]
    answers = [outlet.publish(Message(b"{}"), name, key, soon()) for name, key in where]
    first, second, third = await asyncio.gather(*answers, return_exceptions=True)
    assert type(second) is TopologyMismatch
    assert "exchange 'nowhere' is missing" in str(second)
    assert "penstock topology apply" in str(second)
    assert type(first) in (type(None), ConnectionLost)
    assert type(third) is ConnectionLost
    assert not link.lost.done()


async def test_a_key_without_topic_permission_is_refused_by_name(vhost: Vhost) -> None:
    await PikaSubject(vhost.url).declare(topology(exchange("jobs"), queue("q"), Binding("jobs", "q", "#")))
    with user(vhost, topic=("jobs", r"^email\.")) as url:
        link = await PikaBroker(url).connect("test")
        outlet = await link.outlet()
        await outlet.publish(Message(b"{}"), "jobs", "email.send", soon())
        with pytest.raises(AccessRefused, match=r"report\.make"):
            await outlet.publish(Message(b"{}"), "jobs", "report.make", soon())
        await link.close()


async def test_what_cannot_be_sent_is_refused_alone(vhost_url: str, link: PikaLink) -> None:
    await PikaSubject(vhost_url).declare(topology(queue("q")))
    outlet = await link.outlet()
    with pytest.raises(Unencodable):
        await outlet.publish(Message(b"{}", {"set": {1}}), "", "q", soon())
    with pytest.raises(Unencodable):
        await outlet.publish(Message(b"{}"), "", "k" * 256, soon())
    with pytest.raises(TooLarge):
        await outlet.publish(Message(b"{}", {"h": "x" * 131_072}), "", "q", soon())
    await outlet.publish(Message(b"{}", {"h": "x" * 130_000}), "", "q", soon())
    assert await link.depth("q") == 1


# Properties of foreign producers


def table(*fields: bytes) -> bytes:
    joined = b"".join(fields)
    return struct.pack(">I", len(joined)) + joined


def field(name: bytes, kind: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + kind + value


def deep_array(depth: int) -> bytes:
    value = struct.pack(">I", 0)
    for _ in range(depth):
        value = struct.pack(">I", len(value) + 1) + b"A" + value
    return value


FAR = struct.pack(">Q", 10**15)
GOOD = field(b"good", b"S", b"\x00\x00\x00\x02ok")

HOSTILE = {
    "timestamp in milliseconds": (TIMESTAMP, struct.pack(">Q", 1_700_000_000_000)),
    "timestamp of the year 31690708": (TIMESTAMP, FAR),
    "header timestamp of the year 31690708": (HEADERS, table(field(b"bad", b"T", FAR), GOOD)),
    "array 2,000 deep": (HEADERS, table(field(b"bad", b"A", deep_array(2000)), GOOD)),
    "id and type not UTF-8": (MESSAGE_ID | TYPE, b"\x02\xff\xfe\x02\xc3\x28"),
    "content type not UTF-8": (CONTENT_TYPE, b"\x01\xff"),
    "header text not UTF-8": (HEADERS, table(field(b"bad", b"S", b"\x00\x00\x00\x01\xff"), GOOD)),
    "header name not UTF-8": (HEADERS, table(field(b"\xff\xfe", b"t", b"\x01"), GOOD)),
    "nested tables": (HEADERS, table(field(b"bad", b"F", table(field(b"in", b"F", table(GOOD)))), GOOD)),
    "30 KiB of headers": (HEADERS, table(field(b"bad", b"S", struct.pack(">I", 30_720) + b"x" * 30_720), GOOD)),
    "the largest numbers": (HEADERS, table(field(b"bad", b"l", b"\x80" + b"\x00" * 7), GOOD)),
}


@dataclass
class Poisoned:
    """A queue that holds every hostile message and an innocent one after each."""

    link: PikaLink
    deliveries: dict[str, Delivery]
    innocents: int


@pytest.fixture
async def poisoned(vhost_url: str, link: PikaLink) -> Poisoned:
    await PikaSubject(vhost_url).declare(topology(queue("q")))
    with RawPublisher(vhost_url) as publisher:
        for name, (flags, properties) in HOSTILE.items():
            publisher.publish("q", flags, properties, name.encode())
            publisher.publish("q", APP_ID, b"\x08innocent", b"innocent")
    inbox = Inbox()
    subscription = await link.consume("q", 100, inbox, "c")
    deliveries = await inbox.take(2 * len(HOSTILE))
    for delivery in deliveries:
        subscription.ack(delivery)
    innocents = [delivery for delivery in deliveries if delivery.message.app_id == "innocent"]
    by_name = {delivery.message.body.decode(): delivery for delivery in deliveries}
    return Poisoned(link, by_name, len(innocents))


async def test_hostile_properties_cost_themselves_and_nothing_else(poisoned: Poisoned) -> None:
    assert poisoned.innocents == len(HOSTILE)
    assert poisoned.deliveries.keys() == HOSTILE.keys() | {"innocent"}
    for name, (flags, _) in HOSTILE.items():
        if flags == HEADERS:
            assert poisoned.deliveries[name].message.headers["good"] == "ok", name
    assert not poisoned.link.lost.done()
    assert await poisoned.link.depth("q") == 0


async def test_what_cannot_be_decoded_is_none(poisoned: Poisoned) -> None:
    got = {name: delivery.message for name, delivery in poisoned.deliveries.items()}
    assert got["timestamp in milliseconds"].timestamp is None
    assert got["timestamp of the year 31690708"].timestamp is None
    assert got["header timestamp of the year 31690708"].headers["bad"] is None
    assert (got["id and type not UTF-8"].message_id, got["id and type not UTF-8"].type) == (None, None)
    assert got["content type not UTF-8"].content_type is None
    assert got["header text not UTF-8"].headers["bad"] == b"\xff"
    assert got["header name not UTF-8"].headers == {"good": "ok"}
    assert got["nested tables"].headers["bad"] == {"in": {"good": "ok"}}
    assert len(got["30 KiB of headers"].headers["bad"]) == 30_720
    assert got["the largest numbers"].headers["bad"] == -(2**63)


async def test_a_key_that_is_not_utf8_is_delivered(vhost_url: str, link: PikaLink) -> None:
    await PikaSubject(vhost_url).declare(topology(exchange("in"), queue("q"), Binding("in", "q", "#")))
    with RawPublisher(vhost_url) as publisher:
        publisher.publish("in", 0, b"", key=b"bad.\xff")
    inbox = Inbox()
    await link.consume("q", 1, inbox, "c")
    assert (await inbox.next()).key == "bad.�"


# A node that may be harmed: TLS, limits, alarms


async def test_tls_with_a_private_authority_carries_jobs(fragile: Fragile) -> None:
    await PikaSubject(fragile.url).declare(topology(queue("tls")))
    link = await PikaBroker(fragile.tls_url).connect("tls")
    outlet, inbox = await link.outlet(), Inbox()
    answers = [outlet.publish(Message(b"x" * 5_000), "", "tls", soon()) for _ in range(200)]
    await asyncio.gather(*answers)
    subscription = await link.consume("tls", 300, inbox, "c")
    for delivery in await inbox.take(200):
        subscription.ack(delivery)
    await subscription.close()
    await link.close()
    assert type(link.lost.result()) is ConnectionLost


async def test_a_certificate_for_another_host_is_refused(fragile: Fragile) -> None:
    error = await refusal(fragile.tls_url.replace("@localhost", "@127.0.0.1"))
    assert type(error) is AccessRefused
    assert "IP address mismatch" in str(error)


async def test_a_certificate_of_an_unknown_authority_is_refused(fragile: Fragile) -> None:
    error = await refusal(fragile.tls_url.partition("?")[0])
    assert type(error) is AccessRefused
    assert "certificate is not trusted" in str(error)


async def test_tls_to_a_port_without_is_told_so(fragile: Fragile) -> None:
    error = await refusal(fragile.tls_url.replace(f":{fragile.tls_port}/", f":{fragile.info.ports.amqp}/"))
    assert type(error) is ConnectionLost
    assert "TLS" in str(error)


async def test_no_tls_to_a_port_with_it_is_told_so(fragile: Fragile) -> None:
    error = await refusal(fragile.url.replace(f":{fragile.info.ports.amqp}/", f":{fragile.tls_port}/"))
    assert type(error) is ConnectionLost
    assert "wants TLS" in str(error)


async def test_a_body_over_the_brokers_limit_is_refused_by_its_size(fragile: Fragile) -> None:
    await PikaSubject(fragile.url).declare(topology(queue("small")))
    link = await PikaBroker(fragile.url).connect("large")
    outlet = await link.outlet()
    answers = [outlet.publish(Message(b"x" * size), "", "small", soon()) for size in (10, 2_000_001, 20)]
    _, large, after = await asyncio.gather(*answers, return_exceptions=True)
    assert (type(large), type(after)) == (TooLarge, ConnectionLost)
    await link.close()


async def test_under_an_alarm_publishes_wait_unsent_and_go_out_when_it_is_over(fragile: Fragile) -> None:
    await PikaSubject(fragile.url).declare(topology(queue("alarm")))
    link = await PikaBroker(fragile.url).connect("alarm")
    outlet = await link.outlet()
    alarm = fragile.blocked()
    await asyncio.to_thread(alarm.__enter__)
    try:
        first = outlet.publish(Message(b"first"), "", "alarm", soon(60))
        await eventually(lambda: link.blocked, within=15)
        dead = outlet.publish(Message(b"dead"), "", "alarm", soon(0.2))
        kept = outlet.publish(Message(b"kept"), "", "alarm", soon(60))
        with pytest.raises(Unconfirmed, match="was not sent"):
            await dead
    finally:
        await asyncio.to_thread(alarm.__exit__, None, None, None)
    await asyncio.wait_for(asyncio.gather(first, kept), 30)
    assert not link.blocked
    inbox = Inbox()
    await link.consume("alarm", 5, inbox, "c")
    assert [delivery.message.body for delivery in await inbox.take(2)] == [b"first", b"kept"]
    await link.close()


async def test_a_broker_that_is_killed_is_noticed_at_once(fragile: Fragile) -> None:
    link = await PikaBroker(fragile.url, heartbeat=timedelta(seconds=60)).connect("killed")
    outlet = await link.outlet()
    await asyncio.to_thread(fragile.kill)
    assert type(await asyncio.wait_for(link.lost, PATIENCE)) is ConnectionLost
    with pytest.raises(ConnectionLost, match="was not sent"):
        await outlet.publish(Message(b"{}"), "", "q", soon())
