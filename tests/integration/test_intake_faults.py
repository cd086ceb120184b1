"""The HTTP door in bad days: a broker that is away, blocked or silent, and a stop in the middle of a request."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.testing.free_ports import free_ports
from tests.integration.conftest import Fragile
from tests.support.intake import WELCOME, Intake, head, intake_process, listening_intake
from tests.support.scrapes import connected, get, parsed
from tests.support.waiting import eventually
from tests.support.working import depth, empty

pytestmark = pytest.mark.timeout(180)

SEND = "/v1/jobs/email.send"


@pytest.fixture
def intake(fragile: Fragile, tmp_path: Path) -> Iterator[Intake]:
    """An intake at the node that may be harmed."""
    with intake_process(fragile.url, tmp_path, INTAKE_PUBLISH_TIMEOUT="20s") as intake:
        yield intake


async def refused_at_once(intake: Intake) -> bool:
    """Whether a job is answered with 503 and when to come back; it may not be taken."""
    said = await intake.ask("POST", SEND, WELCOME)
    if said.status == 202:
        return False
    assert (said.status, said.headers["retry-after"]) == (503, "5")
    return said.problem == "broker"


async def taken(intake: Intake) -> bool:
    """Whether a job is taken."""
    return (await intake.ask("POST", SEND, WELCOME)).status == 202


async def test_while_the_broker_is_down_every_job_is_refused_at_once_and_after_it_taken(
    intake: Intake, fragile: Fragile
) -> None:
    assert await taken(intake)
    await asyncio.to_thread(fragile.kill)
    await eventually(lambda: refused_at_once(intake), within=30)
    started = time.monotonic()
    for _ in range(20):
        assert await refused_at_once(intake)
    assert time.monotonic() - started < 20 * 1.0  # each would wait for 2 s were it not known
    assert (await get(intake.metrics_port, "/readyz")).status == 503
    assert (await get(intake.metrics_port, "/healthz")).status == 200
    assert (await intake.ask("GET", "/v1/kinds")).status == 200
    await asyncio.to_thread(fragile.start)
    await eventually(lambda: taken(intake), within=60)
    assert (await get(intake.metrics_port, "/readyz")).status == 200


async def test_while_the_broker_blocks_publishers_jobs_are_refused_and_none_comes_twice(
    intake: Intake, fragile: Fragile
) -> None:
    await empty(fragile.url, "jobs.email")
    with fragile.blocked():
        first = await intake.ask("POST", SEND, WELCOME, idempotency_key="once")
        assert (first.status, first.problem) in ((503, "unconfirmed"), (503, "broker"))
        for _ in range(5):
            assert await refused_at_once(intake)

    async def again() -> bool:
        return (await intake.ask("POST", SEND, WELCOME, idempotency_key="once")).status == 202

    await eventually(again, within=30)
    assert await depth(fragile.url, "jobs.email") in (1, 2)  # what was written before the alarm was told comes, too


async def test_a_broker_that_is_silent_is_waited_for_only_so_long(intake: Intake, fragile: Fragile) -> None:
    with fragile.frozen():
        async with asyncio.timeout(40):
            said = await intake.ask("POST", SEND, WELCOME)
        assert (said.status, said.headers["retry-after"]) == (503, "5")
        assert said.problem in ("unconfirmed", "broker")
        assert (await intake.ask("GET", "/v1/kinds")).status == 200
    await eventually(lambda: taken(intake), within=60)


async def test_before_the_broker_is_reached_jobs_are_refused_and_after_a_while_it_gives_up(tmp_path: Path) -> None:
    [port] = free_ports(1)
    url = f"amqp://127.0.0.1:{port}"
    with listening_intake(url, tmp_path, PENSTOCK_CONNECT_TIMEOUT="20s") as intake:
        assert await refused_at_once(intake)
        assert await asyncio.to_thread(intake.process.wait, 60) == 3
    assert "intake: " in intake.log.read_text()


async def test_a_stop_lets_the_request_end_that_is_under_way_and_takes_no_other(
    intake: Intake, fragile: Fragile
) -> None:
    await empty(fragile.url, "jobs.email")
    body = b'{"to": "ada@example.org", "template": "welcome"}'
    headers = {"host": "localhost", "content-type": "application/json", "content-length": str(len(body))}
    port = intake.port
    async with connected(port) as (reader, writer), asyncio.timeout(60):
        writer.write(head("POST", SEND, headers) + body[:10])
        await writer.drain()
        assert (await intake.ask("GET", "/v1/kinds")).status == 200  # came after it: the first one is read by now
        intake.process.send_signal(signal.SIGTERM)
        await eventually(lambda: b'"draining"' in intake.log.read_bytes())
        await eventually(lambda: refuses(port))
        writer.write(body[10:])
        said = parsed(await reader.read())
    assert said.status == 202, said
    assert await asyncio.to_thread(intake.process.wait, 30) == 0
    assert await depth(fragile.url, "jobs.email") == 1


async def refuses(port: int) -> bool:
    """Whether no new connection is taken."""
    try:
        async with connected(port):
            return False
    except OSError:
        return True


async def test_a_request_that_does_not_end_is_cut_off_by_the_stop_which_then_is_not_clean(
    fragile: Fragile, tmp_path: Path
) -> None:
    with intake_process(fragile.url, tmp_path, PENSTOCK_DRAIN_TIMEOUT="1s") as intake:
        headers = {"host": "localhost", "content-type": "application/json", "content-length": "50"}
        async with connected(intake.port) as (_, writer):
            writer.write(head("POST", SEND, headers))
            await writer.drain()
            assert (await intake.ask("GET", "/v1/kinds")).status == 200
            assert await asyncio.to_thread(intake.stop) == 1
    assert b"Traceback" not in intake.log.read_bytes()
