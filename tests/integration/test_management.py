"""The management API's client on a real broker: what it reads and does, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from penstock.applying import apply
from penstock.errors import AccessRefused, BrokerError, ConnectionLost, PenstockError
from penstock.management import Management
from penstock.topology.build import build
from penstock.topology.definitions import definitions
from penstock.topology.policies import Policy
from penstock.topology.reading import parse_spec
from penstock.urls import BrokerUrl
from tests.support.brokers import Vhost
from tests.support.waiting import wait_until

SPEC = parse_spec("queues: {email: [email.*]}")


@pytest.fixture
def management(vhost: Vhost) -> Iterator[Management]:
    """A client for a virtual host of the test's own."""
    with Management(BrokerUrl.parse(vhost.url), vhost.broker.management_url) as client:
        yield client


def test_the_version_is_the_brokers(management: Management, vhost: Vhost) -> None:
    assert management.version() == vhost.broker.version


def test_what_is_declared_is_seen_at_once_and_as_declared(management: Management, vhost: Vhost) -> None:
    asyncio.run(apply(vhost.url, SPEC))
    live, wanted = management.live(), build(SPEC)
    assert {name: exchange for name, (exchange, _) in live.exchanges.items() if name.startswith("jobs")} == {
        exchange.name: exchange for exchange in wanted.exchanges
    }
    assert [queue for queue, _ in live.queues.values()] == sorted(wanted.queues, key=lambda queue: queue.name)
    assert live.bindings == set(wanted.bindings)


def test_a_policy_shows_on_the_queues_it_applies_to(management: Management, vhost: Vhost) -> None:
    asyncio.run(apply(vhost.url, SPEC))
    policy = Policy("p", "^jobs\\.email$", {"max-length": 5}, apply_to="queues")
    management.put_policy(policy)
    live = management.live()
    assert live.policies == {"p": policy}
    assert [name for name, (_, found) in live.queues.items() if found.policies == (policy,)] == ["jobs.email"]
    management.put_policy(replace(policy, priority=1))
    assert management.live().policies["p"].priority == 1


def test_it_publishes_as_the_ui_does_and_says_whether_a_queue_took_it(management: Management, vhost: Vhost) -> None:
    asyncio.run(apply(vhost.url, SPEC))
    assert management.publish("jobs", "email.send", '{"to": "ada"}', {"type": "email.send"})
    assert not management.publish("jobs", "emial.send", "{}")
    (message,) = wait_until(lambda: management.get("jobs.email", 5))
    assert (message["payload"], message["routing_key"], message["properties"]["type"]) == (
        '{"to": "ada"}',
        "email.send",
        "email.send",
    )
    assert len(wait_until(lambda: management.get("jobs.email", 5))) == 1  # looking has not taken it
    wait_until(lambda: management.live().queues["jobs.email"][1].messages == 1, within=15)


def test_definitions_are_imported(management: Management, vhost: Vhost) -> None:
    table = definitions(replace(SPEC, vhost=vhost.name), vhost.broker.version)
    management.import_definitions(table)
    assert {"jobs", "jobs.deliver"} <= management.live().exchanges.keys()


@pytest.mark.parametrize(
    ("change", "at", "error", "words"),
    [
        ({"password": "wrong"}, None, AccessRefused, "is refused at overview"),
        ({"vhost": "nowhere"}, None, AccessRefused, "nowhere"),
        ({}, "http://127.0.0.1:1", ConnectionLost, "no answer .* RABBITMQ_MANAGEMENT_URL"),
        ({}, "amqp port", ConnectionLost, "no answer"),
        ({}, "prometheus port", PenstockError, "management API http"),
    ],
)
def test_failures_are_told_apart(
    vhost: Vhost, change: dict[str, str], at: str | None, error: type[PenstockError], words: str
) -> None:
    ports = vhost.broker.ports
    others = {"amqp port": ports.amqp, "prometheus port": ports.prometheus, None: ports.management}
    where = f"http://127.0.0.1:{others[at]}" if at in others else at
    with pytest.raises(error, match=words):
        look(replace(BrokerUrl.parse(vhost.url), **change), where)  # type: ignore[arg-type]  # texts only


def look(url: BrokerUrl, where: str | None) -> None:
    with Management(url, where) as client:
        client.version()
        client.live()


def test_what_the_api_refuses_is_told_in_its_words(management: Management) -> None:
    with pytest.raises(BrokerError, match=r"policies/.*: .*(not recognised|alidation).* \(400\)"):
        management.put_policy(Policy("p", ".*", {"no-such-thing": 1}, apply_to="queues"))
