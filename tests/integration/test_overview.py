"""``penstock status``, ``queues`` and ``workers`` on a real broker: what they show is what is there."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aio_pika
import pytest

from penstock.connect import broker_for
from penstock.delay import kind_key
from penstock.management import Management
from penstock.overview import judging
from penstock.overview.model import Overview, Processes, QueueState, WorkerState
from penstock.overview.reading import overview
from penstock.overview.workers import workers
from penstock.testing.broker_node import BrokerInfo
from penstock.urls import BrokerUrl
from tests.support.apps import Do
from tests.support.brokers import manage
from tests.support.commands import Finished, penstock
from tests.support.processes import worker_process
from tests.support.scrapes import ports_in
from tests.support.waiting import eventually
from tests.support.working import declare, empty, foreign, put

#: The management API is up to 5 s behind, and more under load.
SOON = 40.0

Command = Callable[..., Finished]


@pytest.fixture(scope="module")
def url(broker: BrokerInfo) -> Iterator[str]:
    """A virtual host of this file's own: what is counted here are rates, and others would count too."""
    name = f"overview-{uuid.uuid4().hex[:12]}"
    manage(broker, "PUT", f"/api/vhosts/{name}")
    topology = "queues: {email: [email.*], report: [report.*], north: [sync.*], south: [sync.*]}"
    asyncio.run(declare(broker.url_for(name), topology))
    yield broker.url_for(name)
    manage(broker, "DELETE", f"/api/vhosts/{name}")


@pytest.fixture
def management(url: str, broker: BrokerInfo) -> Iterator[Management]:
    """The management API of the shared virtual host."""
    with Management(BrokerUrl.parse(url), broker.management_url) as client:
        yield client


@pytest.fixture
def command(url: str, broker: BrokerInfo) -> Command:
    """Run ``penstock`` on the shared virtual host."""

    def run(*words: str, **environment: str) -> Finished:
        settings = {"RABBITMQ_URL": url, "RABBITMQ_MANAGEMENT_URL": broker.management_url}
        return penstock(*words, **(settings | environment))

    return run


def seen(found: Overview, name: str = "email") -> QueueState:
    """One queue of it."""
    return next(queue for queue in found.queues if queue.name == name)


def alerts(queue: QueueState) -> Mapping[str, bool]:
    """What is wrong with *queue*, and whether it fires."""
    return {trouble.alert: trouble.firing for trouble in judging.of_queue(queue)}


async def test_what_waits_is_dead_delayed_or_unrouted(url: str, management: Management, command: Command) -> None:
    everything = ("jobs.email", "jobs.email.dead", "jobs.unrouted", "jobs.delay.11-34m")
    await empty(url, *everything)
    async with foreign(url) as channel:
        for _ in range(3):
            await put(channel, "email.send", b"{}")
        await put(channel, "jobs.email", b"{}", exchange="jobs.dead")
        await put(channel, "jobs.typo", b"{}", exchange="jobs.dead")  # reaches jobs.unrouted
        await put(channel, kind_key(3000, "email.send"), b"{}", exchange="jobs.delay")

    def told() -> Overview | None:
        found = overview(management, Processes())
        email = seen(found)
        known = (email.ready, email.dead, found.unrouted, sum(level.waiting for level in found.levels))
        return found if known == (3, 1, 1, 1) else None

    try:
        found = await eventually(told, within=SOON)
        assert found is not None
        assert alerts(seen(found)) == {"PenstockNoConsumers": False, "PenstockDeadLetters": True}
        assert [trouble.alert for trouble in judging.of_all(found)] == ["PenstockUnrouted"]
        done = await asyncio.to_thread(command, "status")
        assert (done.code, done.err) == (0, "")
        line = next(line for line in done.out.splitlines() if line.startswith("email"))
        assert line.split()[:3] == ["email", "3", "0"]
        assert "1 dead letters" in line
        assert "nobody works, 3 wait" in line
        assert "1 in jobs.unrouted" in done.out.splitlines()[0]
        assert "later   34m 1 (" in done.out
        told_as_json = json.loads((await asyncio.to_thread(command, "queues", "--json")).out)
        assert {queue["queue"] for queue in told_as_json} == {"email", "report", "north", "south"}
    finally:
        await empty(url, *everything)


async def test_of_many_queues_those_are_shown_that_hold_most(url: str, management: Management) -> None:
    await empty(url, "jobs.email", "jobs.report")
    async with foreign(url) as channel:
        await put(channel, "report.a", b"{}")
    try:
        await eventually(lambda: seen(overview(management, Processes()), "report").ready == 1, within=SOON)

        def longest() -> tuple[list[str], int]:
            found = overview(management, Processes(), most=1)
            return [queue.name for queue in found.queues], found.quiet

        await eventually(lambda: longest() == (["report"], 3), within=SOON)
    finally:
        await empty(url, "jobs.report")


async def test_a_running_worker_its_rates_and_what_fails(
    url: str, management: Management, command: Command, tmp_path: Path
) -> None:
    await empty(url, "jobs.email", "jobs.email.dead")
    async with worker_process(url, tmp_path, PENSTOCK_METRICS_PORT="0") as worker, foreign(url) as channel:
        [port] = await ports_in(worker.log)
        for number in range(40):
            await put(channel, "email.thread", _do("reject" if number < 10 else "nothing"), type="email.thread")
        try:
            found = await eventually(lambda: _died(management, 10), within=SOON)
            assert found is not None
            assert found.died is not None
            assert found.died.value is not None
            assert found.died.value > 0.05
            assert alerts(found)["PenstockJobFailureRate"]
            assert alerts(found).keys() & {"PenstockDeadLettersGrow", "PenstockDeadLetters"}
            done = await asyncio.to_thread(command, "status", "--json", "--metrics-targets", f"127.0.0.1:{port}")
            told = json.loads(done.out)
            email = next(queue for queue in told["queues"] if queue["queue"] == "email")
            assert email["failed"]["email.thread"] == {"count": 10, "of": 40, "share": 0.25}
            assert "PenstockAttemptFailureRate" in {trouble["alert"] for trouble in email["troubles"]}
            assert told["processes"] == {"asked": 1, "silent": {}}
            [process] = await eventually(lambda: _named(management, "email", worker.pid), within=SOON)
            assert (process.host, process.queues, process.user) == (socket.gethostname(), ["email"], "penstock")
            assert process.slots == 4
            assert process.prefetch >= 1
            assert process.states == []
            assert process.version
            done = await asyncio.to_thread(command, "workers")
            assert f"{worker.pid}" in done.out
        finally:
            await empty(url, "jobs.email.dead")


def _do(deed: str) -> bytes:
    return json.dumps(Do(do=deed).__dict__).encode()


def _died(management: Management, count: int) -> QueueState | None:
    email = seen(overview(management, Processes()))
    told = email.died is not None and email.died.count >= count and email.died.of >= 40 and email.dead == count
    return email if told else None


def _named(management: Management, name: str, pid: int | None) -> list[WorkerState]:
    return [worker for worker in workers(management) if (worker.name, worker.pid) == (name, pid) and worker.prefetch]


async def test_who_consumes_without_being_ours_and_who_is_ours_and_does_not(url: str, management: Management) -> None:
    link = await broker_for(url).connect("email@elsewhere:7 consume")
    name = f"php-{uuid.uuid4().hex[:8]}"
    async with await aio_pika.connect(url, client_properties={"connection_name": name}) as connection:
        channel = await connection.channel()
        await channel.set_qos(5)
        queue = await channel.get_queue("jobs.report", ensure=False)
        await queue.consume(_ignore)

        def both() -> list[WorkerState]:
            found = {worker.name: worker for worker in workers(management) if worker.host == "elsewhere"}
            found |= {worker.name: worker for worker in workers(management) if worker.name == name and worker.prefetch}
            return [found["email"], found[name]] if len(found) == 2 else []

        idle, other = await eventually(both, within=SOON)
    await link.close()
    assert (idle.pid, idle.queues, idle.states) == (7, [], ["not consuming"])
    assert (other.pid, other.version, other.queues) == (None, None, ["report"])
    assert (other.slots, other.prefetch) == (None, 5)


async def _ignore(_: Any) -> None: ...


@pytest.mark.parametrize("words", [("status",), ("queues", "--json"), ("workers",)])
def test_refusals_and_outages_are_one_line_and_an_exit_code(
    command: Command, broker: BrokerInfo, words: tuple[str, ...]
) -> None:
    away = command(*words, RABBITMQ_MANAGEMENT_URL="http://127.0.0.1:1")
    assert (away.code, away.out, away.err.count("\n")) == (3, "", 1), away
    refused = command(*words, RABBITMQ_MANAGEMENT_URL=broker.management_url.replace("//", "//nobody:wrong@"))
    assert (refused.code, refused.out, refused.err.count("\n")) == (4, "", 1), refused
    assert "wrong@" not in refused.err


def test_targets_that_are_silent_are_told_and_those_that_are_none_are_refused(command: Command) -> None:
    done = command("status", PENSTOCK_METRICS_TARGETS="127.0.0.1:1")
    assert done.code == 0
    assert "127.0.0.1:1: no metrics" in done.out
    assert "0 of 1 processes answered" in done.out
    wrong = command("status", PENSTOCK_METRICS_TARGETS="http://x:1/metrics")
    assert (wrong.code, wrong.err.count("\n")) == (5, 1)
    assert "PENSTOCK_METRICS_TARGETS" in wrong.err


def test_a_login_that_may_not_see_nodes_sees_the_rest(command: Command, url: str, broker: BrokerInfo) -> None:
    user, vhost = f"looker-{uuid.uuid4().hex[:8]}", BrokerUrl.parse(url).vhost
    manage(broker, "PUT", f"/api/users/{user}", {"password": "look", "tags": "management"})
    manage(broker, "PUT", f"/api/permissions/{vhost}/{user}", {"configure": "^$", "write": "^$", "read": "^$"})
    try:
        done = command(
            "status", "--json", RABBITMQ_MANAGEMENT_URL=f"http://{user}:look@127.0.0.1:{broker.ports.management}"
        )
    finally:
        manage(broker, "DELETE", f"/api/users/{user}")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["broker"]["nodes"] is None
    assert len(told["queues"]) == 4
