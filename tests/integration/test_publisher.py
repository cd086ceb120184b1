"""Publishing on a real broker: what a confirm means, how each refusal is told apart, and what an outage costs."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from penstock import (
    AccessRefused,
    AsyncPublisher,
    BrokerError,
    ConnectionLost,
    Event,
    Events,
    JobKind,
    Nacked,
    NewJob,
    Publisher,
    PublishManyError,
    Receipt,
    SchemaError,
    TooLarge,
    TopologyMismatch,
    Unconfirmed,
    Unroutable,
)
from penstock.events import LinkLost, LinkOpened, Published
from penstock.testing.free_ports import free_ports
from tests.integration.conftest import Fragile
from tests.support.brokers import Vhost, manage, quoted
from tests.support.waiting import eventually
from tests.support.working import empty, foreign, take, take_all

EMAIL: JobKind[dict[str, Any]] = JobKind("email.send", dict)
REPORT: JobKind[dict[str, Any]] = JobKind("report.render", dict)
UNBOUND: JobKind[dict[str, Any]] = JobKind("emial.send", dict)
ARGS = {"to": "ada@example.org"}
SECOND = timedelta(seconds=1)


@pytest.fixture
async def publisher(url: str) -> AsyncIterator[AsyncPublisher]:
    """A publisher called orders on the module's virtual host, with empty queues."""
    await empty(url, "jobs.email", "jobs.report")
    async with AsyncPublisher(url, app_id="orders") as publisher:
        yield publisher


# --- a confirm --------------------------------------------------------------------------------------------------------


async def test_a_confirmed_job_is_on_disk_with_everything_a_foreign_reader_needs(
    url: str, publisher: AsyncPublisher
) -> None:
    before = int(time.time())
    receipt = await publisher.publish(EMAIL, ARGS, expires=timedelta(hours=1), correlation_id="order-7")
    async with foreign(url) as channel:
        message = await take(channel, "jobs.email")
    assert message.body == b'{"to":"ada@example.org"}'
    assert (message.exchange, message.routing_key) == ("jobs", "email.send")
    assert (message.message_id, message.type) == (receipt.id, "email.send")
    assert (message.app_id, message.correlation_id) == ("orders", "order-7")
    assert (message.content_type, message.delivery_mode) == ("application/json", 2)
    assert message.timestamp is not None
    assert before <= message.timestamp.timestamp() <= time.time()
    published = message.headers["penstock-published"]
    assert before * 1000 <= published <= time.time() * 1000  # type: ignore[operator]  # a number
    assert message.headers["penstock-expires"] == published + 3_600_000  # type: ignore[operator]
    assert (message.user_id, message.expiration, message.priority) == (None, None, 0)


async def test_a_delayed_job_arrives_by_its_kind_when_it_is_due(url: str, publisher: AsyncPublisher) -> None:
    started = time.monotonic()
    due = await publisher.publish(EMAIL, {"n": 1}, at=datetime.now(UTC) + 5 * SECOND)
    delayed = await publisher.publish(EMAIL, {"n": 2}, delay=5 * SECOND)
    at_once = await publisher.publish(EMAIL, {"n": 3})
    async with foreign(url) as channel:
        assert (await take(channel, "jobs.email")).message_id == at_once.id
        arrived = [await take(channel, "jobs.email"), await take(channel, "jobs.email")]
    assert time.monotonic() - started >= 5.0
    assert {message.message_id for message in arrived} == {due.id, delayed.id}
    assert {message.type for message in arrived} == {"email.send"}


async def test_many_jobs_are_confirmed_in_order_and_read_only_a_window_ahead(
    url: str, publisher: AsyncPublisher
) -> None:
    confirmed: Counter[str] = Counter()
    publisher.events.subscribe(lambda event: confirmed.update([type(event).__name__]))
    farthest = 0

    def jobs() -> Iterator[NewJob[dict[str, Any]]]:
        nonlocal farthest
        for number in range(1500):
            farthest = max(farthest, number - confirmed["Published"])
            yield EMAIL.new({"n": number}, id=f"many-{number}")

    receipts = await publisher.publish_many(jobs())
    assert [receipt.id for receipt in receipts] == [f"many-{number}" for number in range(1500)]
    assert 900 < farthest <= 1000
    async with foreign(url) as channel:
        assert [m.message_id for m in await take_all(channel, "jobs.email")] == [r.id for r in receipts]


async def test_a_bad_job_among_good_ones_is_named_and_the_others_are_confirmed(
    url: str, publisher: AsyncPublisher
) -> None:
    jobs: list[NewJob[Any]] = [EMAIL.new({"n": number}, id=f"good-{number}") for number in range(5)]
    bad: Any = ["no object"]
    jobs[1:1] = [NewJob(EMAIL, bad, "schema"), NewJob(EMAIL, {"x": "y" * 2**20}, "large")]
    jobs.append(UNBOUND.new({}, id="typo"))
    with pytest.raises(PublishManyError, match="3 of 8 jobs") as failed:
        await publisher.publish_many(jobs)
    assert [(position, job_id, type(error)) for position, job_id, error in failed.value.failures] == [
        (1, "schema", SchemaError),
        (2, "large", TooLarge),
        (7, "typo", Unroutable),
    ]
    async with foreign(url) as channel:
        assert {m.message_id for m in await take_all(channel, "jobs.email")} == {f"good-{n}" for n in range(5)}


async def test_what_is_published_is_told_as_events(url: str) -> None:
    seen: list[Event] = []
    events = Events()
    events.subscribe(seen.append)
    async with AsyncPublisher(url, app_id="orders", events=events) as publisher:
        await publisher.publish(EMAIL, ARGS)
        with pytest.raises(Unroutable):
            await publisher.publish(UNBOUND, ARGS)
    published = [event for event in seen if isinstance(event, Published)]
    assert [(event.kind, event.result) for event in published] == [
        ("email.send", "confirmed"),
        ("emial.send", "unroutable"),
    ]
    assert all(event.seconds > 0 for event in published)
    assert [event.name for event in seen if isinstance(event, LinkOpened)] == [
        f"orders@{os.uname().nodename}:{os.getpid()} publish"
    ]
    assert not [event for event in seen if isinstance(event, LinkLost)]


# --- refusals ---------------------------------------------------------------------------------------------------------


async def test_a_kind_that_no_queue_takes_is_unroutable(publisher: AsyncPublisher) -> None:
    with pytest.raises(Unroutable, match=r"'emial\.send' on exchange 'jobs'"):
        await publisher.publish(UNBOUND, ARGS)


async def test_a_full_queue_refuses_and_says_so_and_others_go_on(url: str, publisher: AsyncPublisher) -> None:
    full: JobKind[dict[str, Any]] = JobKind("full.queue", dict)
    async with foreign(url) as channel:
        queue = await channel.declare_queue(
            "full", durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        await queue.bind("jobs", "full.*")
        await publisher.publish(full, ARGS)
        with pytest.raises(Nacked, match="full"):
            await publisher.publish(full, ARGS)
        await publisher.publish(EMAIL, ARGS)
        await queue.delete(if_empty=False)


async def test_a_missing_exchange_is_a_topology_mismatch_until_it_is_there(vhost_url: str) -> None:
    async with AsyncPublisher(vhost_url) as publisher:
        with pytest.raises(TopologyMismatch, match=r"exchange 'jobs' is missing .* `penstock topology apply`"):
            await publisher.publish(EMAIL, ARGS)
        async with foreign(vhost_url) as channel:
            exchange = await channel.declare_exchange("jobs", "topic", durable=True)
            await (await channel.declare_queue("jobs.email", durable=True)).bind(exchange, "email.*")
        assert await publisher.publish(EMAIL, ARGS)


@contextmanager
def login(vhost: Vhost, topics: str) -> Iterator[str]:
    """The URL of a user who may write to the exchange jobs with keys that fit *topics*."""
    name = f"{vhost.name}-user"
    manage(vhost.broker, "PUT", f"/api/users/{name}", {"password": "s3cret", "tags": ""})
    rights = {"configure": "^$", "write": "^jobs$", "read": "^$"}
    manage(vhost.broker, "PUT", f"/api/permissions/{quoted(vhost.name)}/{name}", rights)
    topic = {"exchange": "jobs", "write": topics, "read": "^$"}
    manage(vhost.broker, "PUT", f"/api/topic-permissions/{quoted(vhost.name)}/{name}", topic)
    yield vhost.url.replace(f"{vhost.broker.user}:{vhost.broker.password}", f"{name}:s3cret")
    manage(vhost.broker, "DELETE", f"/api/users/{name}")


async def test_a_kind_that_the_user_may_not_publish_is_refused_and_another_is_not(url: str, broker: Any) -> None:
    vhost = Vhost(url.rpartition("/")[2], broker)
    with login(vhost, r"^email\.") as restricted:
        async with AsyncPublisher(restricted) as publisher:
            with pytest.raises(AccessRefused, match=r"report\.render") as refused:
                await publisher.publish(REPORT, ARGS)
            assert "s3cret" not in str(refused.value)
            receipts = await asyncio.gather(
                *(publisher.publish(EMAIL, ARGS) for _ in range(20)),
                publisher.publish(REPORT, ARGS),
                *(publisher.publish(EMAIL, ARGS) for _ in range(20)),
                return_exceptions=True,
            )
    failed = [receipt for receipt in receipts if isinstance(receipt, BaseException)]
    assert [type(error) for error in failed] == [AccessRefused]


async def test_a_wrong_password_is_refused_at_once_and_never_shown(url: str) -> None:
    user, _, rest = url.partition("@")
    wrong = f"{user.rpartition(':')[0]}:n0tmine@{rest}"
    started = time.monotonic()
    with pytest.raises(AccessRefused) as refused:
        await AsyncPublisher(wrong).publish(EMAIL, ARGS)
    assert time.monotonic() - started < 10
    assert "n0tmine" not in str(refused.value)


async def test_a_body_over_the_brokers_own_limit_fails_alone(fragile: Fragile) -> None:
    async with AsyncPublisher(fragile.url, max_body=10_000_000) as publisher:
        results = await asyncio.gather(
            *(publisher.publish(EMAIL, {"n": n}) for n in range(10)),
            publisher.publish(EMAIL, {"x": "y" * 3_000_000}),
            *(publisher.publish(EMAIL, {"n": n}) for n in range(10)),
            return_exceptions=True,
        )
    assert [type(result) for result in results if isinstance(result, BaseException)] == [TooLarge]


# --- outages ----------------------------------------------------------------------------------------------------------


async def test_with_nobody_at_the_address_a_publish_gives_up_at_its_deadline() -> None:
    [port] = free_ports(1)
    publisher = AsyncPublisher(f"amqp://localhost:{port}")
    started = time.monotonic()
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        await publisher.publish(EMAIL, ARGS, deadline=timedelta(seconds=0.7))
    assert 0.6 < time.monotonic() - started < 10
    await publisher.close()


async def test_a_closed_publisher_refuses_at_once(url: str) -> None:
    publisher = AsyncPublisher(url)
    await publisher.publish(EMAIL, ARGS)
    await publisher.close()
    started = time.monotonic()
    with pytest.raises(ConnectionLost, match="closed on our side"):
        await publisher.publish(EMAIL, ARGS)
    assert time.monotonic() - started < 10


async def test_a_frozen_broker_leaves_the_outcome_unknown_and_one_copy_at_most(fragile: Fragile) -> None:
    async with AsyncPublisher(fragile.url) as publisher:
        await publisher.publish(EMAIL, ARGS, id="before")
        with fragile.frozen():
            started = time.monotonic()
            with pytest.raises(Unconfirmed, match="no confirm"):
                await publisher.publish(EMAIL, ARGS, id="during", deadline=timedelta(seconds=1.5))
            assert 1.4 < time.monotonic() - started < 10
        await publisher.publish(EMAIL, ARGS, id="after")
    async with foreign(fragile.url) as channel:
        arrived = Counter(message.message_id for message in await take_all(channel, "jobs.email"))
    assert (arrived["before"], arrived["after"]) == (1, 1)
    assert arrived["during"] <= 1


async def test_a_blocked_broker_fails_publishes_in_time_and_gets_one_copy_of_each_at_most(fragile: Fragile) -> None:
    async with AsyncPublisher(fragile.url) as publisher:
        await publisher.publish(EMAIL, ARGS)
        with fragile.blocked():
            started = time.monotonic()
            results = await asyncio.gather(
                *(publisher.publish(EMAIL, ARGS, id=f"job-{n}", deadline=timedelta(seconds=3)) for n in range(20)),
                return_exceptions=True,
            )
            assert time.monotonic() - started < 10
            assert {type(result) for result in results} <= {Unconfirmed, ConnectionLost}
        await publisher.publish(EMAIL, ARGS, id="after")
    async with foreign(fragile.url) as channel:
        arrived = Counter(message.message_id for message in await take_all(channel, "jobs.email"))
    assert arrived["after"] == 1
    assert max(arrived.values()) == 1


async def test_every_job_confirmed_before_the_broker_was_killed_is_there_after_it(fragile: Fragile) -> None:
    confirmed: set[str] = set()
    stop = threading.Event()
    with Publisher(fragile.url, deadline=timedelta(minutes=2)) as publisher:
        async with AsyncPublisher(fragile.url, deadline=timedelta(minutes=2)) as other:
            with ThreadPoolExecutor(4) as threads:
                streams = [threads.submit(_stream, publisher, f"thread-{n}", confirmed, stop) for n in range(4)]
                tasks = [asyncio.create_task(_async_stream(other, f"task-{n}", confirmed, stop)) for n in range(4)]
                await eventually(lambda: len(confirmed) > 300, within=60)
                await asyncio.to_thread(fragile.kill)
                before = len(confirmed)
                await asyncio.to_thread(fragile.start)
                await eventually(lambda: len(confirmed) > before + 300, within=60)
                stop.set()
                await asyncio.gather(*tasks)
            assert [stream.exception() for stream in streams] == [None] * 4
    async with foreign(fragile.url) as channel:
        arrived = Counter(message.message_id for message in await take_all(channel, "jobs.email"))
    assert confirmed - arrived.keys() == set()
    doubled = [job_id for job_id, count in arrived.items() if count > 1]
    assert len(doubled) <= 8, "only what was in flight at the kill may be there twice"


def _stream(publisher: Publisher, name: str, confirmed: set[str], stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        confirmed.add(publisher.publish(EMAIL, ARGS, id=f"{name}-{number}").id)


async def _async_stream(publisher: AsyncPublisher, name: str, confirmed: set[str], stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        confirmed.add((await publisher.publish(EMAIL, ARGS, id=f"{name}-{number}")).id)


async def test_closing_ends_the_publishes_of_the_async_publisher_one_way_or_the_other(url: str) -> None:
    publisher = AsyncPublisher(url)
    await publisher.connect()
    under_way = [asyncio.create_task(publisher.publish(EMAIL, ARGS)) for _ in range(50)]
    await asyncio.sleep(0)
    await publisher.close()
    ends = await asyncio.wait_for(asyncio.gather(*under_way, return_exceptions=True), 5)
    assert {type(end) for end in ends} <= {Receipt, ConnectionLost, Unconfirmed}


# --- TLS --------------------------------------------------------------------------------------------------------------


async def test_a_job_goes_over_tls_to_a_broker_that_a_private_authority_vouches_for(fragile: Fragile) -> None:
    async with AsyncPublisher(fragile.tls_url) as publisher:
        receipt = await publisher.publish(EMAIL, ARGS)
    async with foreign(fragile.url) as channel:
        assert (await take(channel, "jobs.email")).message_id == receipt.id


@pytest.mark.parametrize(
    "change", [lambda url: url.partition("?")[0], lambda url: url.replace("localhost", "127.0.0.1")]
)
async def test_a_broker_that_cannot_prove_who_it_is_gets_no_job(fragile: Fragile, change: Any) -> None:
    with pytest.raises(BrokerError, match="certificate is not trusted"):
        await AsyncPublisher(change(fragile.tls_url)).publish(EMAIL, ARGS)
