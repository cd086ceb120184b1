"""The blocking publisher: shared by threads, forked, and closed while others still use it."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from penstock import ConnectionLost, JobKind, NewJob, Publisher, PublishManyError, SchemaError, Unroutable
from tests.support.waiting import eventually
from tests.support.working import LEVELS, empty, foreign, take_all

EMAIL: JobKind[dict[str, Any]] = JobKind("email.send", dict)
UNBOUND: JobKind[dict[str, Any]] = JobKind("emial.send", dict)
ARGS = {"to": "ada@example.org"}


async def test_sixteen_threads_share_one_publisher(url: str) -> None:
    await empty(url, "jobs.email", *LEVELS)

    def fifty(thread: int) -> list[str]:
        return [publisher.publish(EMAIL, {"n": n}, id=f"{thread}-{n}").id for n in range(50)]

    with Publisher(url) as publisher, ThreadPoolExecutor(16) as threads:
        made = [
            job_id for ids in await asyncio.to_thread(lambda: list(threads.map(fifty, range(16)))) for job_id in ids
        ]
    async with foreign(url) as channel:
        assert Counter(m.message_id for m in await take_all(channel, "jobs.email")) == Counter(made)
    assert len(made) == 800


async def test_the_blocking_publish_many_names_failures_like_the_other(url: str) -> None:
    await empty(url, "jobs.email", *LEVELS)
    jobs: list[NewJob[Any]] = [EMAIL.new({"n": number}) for number in range(1200)]
    jobs[700] = UNBOUND.new({}, id="typo")
    with Publisher(url) as publisher, pytest.raises(PublishManyError, match="1 of 1200") as failed:
        await asyncio.to_thread(publisher.publish_many, jobs)
    [(position, job_id, error)] = failed.value.failures
    assert (position, job_id, type(error)) == (700, "typo", Unroutable)
    async with foreign(url) as channel:
        assert len(await take_all(channel, "jobs.email")) == 1199


async def test_parent_and_forked_child_publish_each_on_a_connection_of_its_own(url: str) -> None:
    await empty(url, "jobs.email", *LEVELS)
    with Publisher(url) as publisher:
        publisher.publish(EMAIL, ARGS, id="parent before")
        child = os.fork()
        if child == 0:
            try:
                publisher.publish(EMAIL, ARGS, id="child")
                publisher.close()
                os._exit(0)
            finally:
                os._exit(1)
        publisher.publish(EMAIL, ARGS, id="parent meanwhile")
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        publisher.publish(EMAIL, ARGS, id="parent after")
    assert os.waitstatus_to_exitcode(status) == 0
    async with foreign(url) as channel:
        arrived = Counter(message.message_id for message in await take_all(channel, "jobs.email"))
    assert arrived == Counter(["parent before", "child", "parent meanwhile", "parent after"])


async def test_closing_waits_for_the_publishes_under_way(url: str) -> None:
    await empty(url, "jobs.email", *LEVELS)
    publisher = Publisher(url)
    publisher.connect()
    with ThreadPoolExecutor(8) as threads:
        under_way = [threads.submit(publisher.publish, EMAIL, ARGS, id=f"job-{n}") for n in range(8)]
        await eventually(lambda: any(future.done() for future in under_way))
        await asyncio.to_thread(publisher.close)
        receipts = [await asyncio.wrap_future(future) for future in under_way]
    async with foreign(url) as channel:
        assert {m.message_id for m in await take_all(channel, "jobs.email")} == {receipt.id for receipt in receipts}
    publisher.close()


async def test_no_thread_waits_for_ever_when_another_closes_the_publisher(url: str) -> None:
    await empty(url, "jobs.email", *LEVELS)
    publisher = Publisher(url)
    publisher.connect()
    stop = threading.Event()

    def stream(name: int) -> int:
        for number in itertools.count():
            if stop.is_set():
                return number
            with suppress(ConnectionLost, PublishManyError):
                if name % 2:
                    publisher.publish_many([EMAIL.new({}, id=f"{name}-{number}-{n}") for n in range(20)])
                else:
                    publisher.publish(EMAIL, ARGS, id=f"{name}-{number}")
        return 0

    with ThreadPoolExecutor(8) as threads:
        streams = [threads.submit(stream, name) for name in range(8)]
        for _ in range(40):
            await asyncio.to_thread(publisher.close)
        stop.set()
        done = await asyncio.wait_for(asyncio.gather(*map(asyncio.wrap_future, streams)), 20)
    assert len(done) == 8
    publisher.close()


async def test_a_publish_many_that_is_overtaken_by_a_close_says_so(url: str) -> None:
    publisher = Publisher(url)

    def jobs() -> Iterator[NewJob[dict[str, Any]]]:
        yield from (EMAIL.new({}) for _ in range(600))
        publisher.close()
        yield EMAIL.new({})

    with pytest.raises(ConnectionLost, match="closed by another thread"):
        await asyncio.to_thread(publisher.publish_many, jobs())
    publisher.close()


async def test_an_error_of_the_broker_reaches_the_calling_thread(url: str) -> None:
    with Publisher(url) as publisher:
        with pytest.raises(Unroutable):
            await asyncio.to_thread(publisher.publish, UNBOUND, ARGS)
        with pytest.raises(SchemaError):
            publisher.publish(EMAIL, ["no object"])  # type: ignore[misc]  # the mistake this is about
        assert publisher.publish(EMAIL, ARGS).id
