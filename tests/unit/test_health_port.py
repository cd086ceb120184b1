"""The HTTP port of a process against clients that are wrong, slow, many, or hostile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from penstock import ConfigError, Events
from penstock.events import (
    ConnectFailed,
    ConsumingEnded,
    ConsumingStarted,
    DrainStarted,
    Event,
    LinkLost,
    LinkOpened,
    StoreAnswered,
    StoreLost,
    StoreOpened,
)
from penstock.health import FRESH, Pages
from penstock.health_port import MAX_HEAD, MOST, PATIENCE, Answer, HealthPort, Route
from penstock.readiness import Readiness
from tests.support.scrapes import Page, asked, connected, get, parsed
from tests.support.waiting import eventually

IMPATIENT = 1.5
LARGE = b"x" * (8 * 1024 * 1024)


@asynccontextmanager
async def serving(routes: Mapping[str, Route] | None = None, patience: float = PATIENCE) -> AsyncIterator[HealthPort]:
    """A port that answers ``/here``."""
    port = HealthPort("127.0.0.1", 0, routes or {"/here": lambda _: Answer(200, b"here\n")}, patience=patience)
    await port.open()
    try:
        yield port
    finally:
        port.close()


async def test_a_path_is_answered_and_the_connection_closed() -> None:
    async with serving() as port:
        page = await get(port.port, "/here?with=query")
        assert (page.status, page.body) == (200, "here\n")
        assert page.headers["content-length"] == "5"
        assert page.headers["connection"] == "close"


async def test_head_has_the_length_and_no_body() -> None:
    async with serving() as port:
        page = await asked(port.port, b"HEAD /here HTTP/1.0\r\n\r\n")
    assert (page.status, page.headers["content-length"], page.body) == (200, "5", "")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404),
        (b"GET /here/ HTTP/1.1\r\n\r\n", 404),
        (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"GET http://x/here HTTP/1.1\r\n\r\n", 404),
        (b"GET /%68ere HTTP/1.1\r\n\r\n", 404),
        (b"GET /\xff\xfe HTTP/1.1\r\n\r\n", 404),
        (b"POST /here HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        (b"DELETE /here HTTP/1.1\r\n\r\n", 405),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /here HTTP/3.0\r\n\r\n", 505),
        (b"GET  /here HTTP/1.1\r\n\r\n", 400),
        (b"GET /here\r\n\r\n", 400),
        (b"get /here HTTP/1.1\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\n\r\n", 400),
        (b"GET /here\nX: y HTTP/1.1\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"AMQP\x00\x00\x09\x01\r\n\r\n", 400),
        (b"GET /" + b"x" * 3_000 + b" HTTP/1.1\r\n\r\n", 400),
        (b"GET /here HTTP/1.1\r\nX: " + b"x" * MAX_HEAD, 431),
        (b"\x00" * MAX_HEAD, 431),
    ],
)
async def test_what_is_no_request_of_ours_is_refused_in_one_line(request_bytes: bytes, status: int) -> None:
    async with serving() as port:
        page = await asked(port.port, request_bytes)
        assert page.status == status
        assert len(page.body.splitlines()) == 1
        assert (await get(port.port, "/here")).status == 200


async def test_noise_of_any_shape_ends_nothing() -> None:
    async with serving() as port:
        for size in (0, 1, 3, 17, 1_000, 9_000, 70_000):
            with contextlib.suppress(ConnectionError):
                async with connected(port.port) as (reader, writer):
                    writer.write(os.urandom(size))
                    writer.write_eof()
                    await reader.read()
        assert (await get(port.port, "/here")).status == 200


async def test_a_request_in_crumbs_is_understood() -> None:
    async with serving() as port, connected(port.port) as (reader, writer):
        for byte in b"GET /here HTTP/1.1\r\nHost: x\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert parsed(await reader.read()).status == 200


async def test_many_idle_connections_take_no_ones_place() -> None:
    async with serving(patience=IMPATIENT) as port, AsyncExitStack() as stack:
        idle = [(await stack.enter_async_context(connected(port.port)))[0] for _ in range(MOST + 50)]
        assert (await get(port.port, "/here", within=IMPATIENT)).status == 200
        assert port.connections <= MOST
        async with asyncio.timeout(IMPATIENT + 5):
            said = await asyncio.gather(*(reader.read() for reader in idle), return_exceptions=True)
        assert all(word == b"" or isinstance(word, ConnectionError) for word in said), "each was cut off without a word"


async def test_who_does_not_read_is_cut_off_and_others_are_served() -> None:
    routes = {"/large": lambda _: Answer(200, LARGE), "/here": lambda _: Answer(200, b"")}
    async with serving(routes, patience=IMPATIENT) as port:
        with socket.create_connection(("127.0.0.1", port.port)) as slow:
            slow.sendall(b"GET /large HTTP/1.1\r\n\r\n")
            await eventually(lambda: port.connections == 1)
            assert (await get(port.port, "/here")).status == 200
            assert port.connections == 1, "it waits for the one that does not read"
            await eventually(lambda: port.connections == 0, within=IMPATIENT + 5)


async def test_a_port_that_is_taken_is_named_with_the_variable() -> None:
    async with serving() as port:
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port.port}, which PENSTOCK_METRICS_PORT names"):
            await HealthPort("127.0.0.1", port.port, {}).open()
        with pytest.raises(ConfigError, match="PENSTOCK_METRICS_PORT"):
            await HealthPort("no.such.host.invalid", 0, {}).open()


class Slow:
    """A collector that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    def collect(self) -> list[Metric]:
        """One metric that says so."""
        self.asked += 1
        if self.broken:
            raise RuntimeError("broken")
        metric = Metric("asked", "How often.", "gauge")
        metric.add_sample("asked", {}, self.asked)
        return [metric]

    def describe(self) -> list[Metric]:
        """Nothing beforehand."""
        return []


@asynccontextmanager
async def scraped() -> AsyncIterator[tuple[HealthPort, Slow]]:
    """A port with the pages of a registry that holds one collector."""
    registry, slow = CollectorRegistry(), Slow()
    registry.register(slow)
    pages = Pages(registry)
    async with serving({"/metrics": pages.page, "/healthz": lambda _: Answer(200, b"alive\n")}) as port:
        yield port, slow
    pages.close()


async def test_a_thousand_scrapes_at_once_are_written_once_or_twice() -> None:
    async with scraped() as (port, slow):
        started = asyncio.get_running_loop().time()
        gate = asyncio.Semaphore(MOST // 2)

        async def scrape() -> Page:
            async with gate:
                return await get(port.port, "/metrics", within=30)

        pages = await asyncio.gather(*(scrape() for _ in range(1_000)))
        took = asyncio.get_running_loop().time() - started
        assert {page.status for page in pages} == {200}
        assert slow.asked <= 1 + took / FRESH


async def test_the_page_comes_in_the_form_that_is_asked_for() -> None:
    async with scraped() as (port, _):
        text = await get(port.port, "/metrics", "text/plain")
        assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
        opened = await get(port.port, "/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert opened.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert [family.name for family in text_string_to_metric_families(opened.body)] == ["asked"]
        for accept in ("", "\x00" * 50, ";;;q=nan,,", "application/openmetrics-text;version=99;q=x"):
            assert (await get(port.port, "/metrics", accept)).status == 200


async def test_a_broken_collector_is_a_500_and_not_the_end() -> None:
    async with scraped() as (port, slow):
        slow.broken = True
        page = await get(port.port, "/metrics")
        assert (page.status, page.body) == (500, "the metrics cannot be written; the log says why\n")
        assert (await get(port.port, "/healthz")).status == 200


def readiness(*events: Event, queue: str | None = "jobs.email") -> str | None:
    """What is said after *events*."""
    ready, bus = Readiness(["m consume", "m publish"], queue), Events()
    bus.subscribe(ready)
    for event in events:
        bus.emit(event)
    return ready.reason


UP = (LinkOpened("m publish"), LinkOpened("m consume"), ConsumingStarted("jobs.email", 24, "m#1"))


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ((), "not connected as m consume: not yet"),
        (UP, None),
        (UP[:2], "not consuming jobs.email: not yet"),
        ((*UP, LinkLost("m publish", "reset")), "not connected as m publish: reset"),
        ((*UP, LinkLost("m consume", "reset"), ConnectFailed("m consume", "no", 1, 1.0)), "m consume: no"),
        ((*UP, LinkLost("m consume", "reset"), LinkOpened("m consume")), None),
        ((*UP, LinkLost("another publish", "reset")), None),
        ((*UP, ConsumingEnded("jobs.email", "deleted")), "not consuming jobs.email: deleted"),
        ((*UP, StoreLost("redis://h", "refused")), "redis://h does not answer: refused"),
        ((*UP, StoreLost("redis://h", "refused"), StoreAnswered("redis://h", 1.0)), "not consuming jobs.email"),
        ((*UP, StoreLost("redis://h", "no"), StoreAnswered("redis://h", 1.0), UP[2]), None),
        ((ConnectFailed("redis://h", "refused", 1, 1.0),), "redis://h does not answer: refused"),
        ((ConnectFailed("redis://h", "refused", 1, 1.0), StoreOpened("redis://h"), *UP), None),
        ((*UP, DrainStarted("email", 3, 25.0)), "draining"),
    ],
)
def test_why_a_process_is_not_ready_is_said_in_one_line(events: tuple[Event, ...], reason: str | None) -> None:
    said = readiness(*events)
    if reason is None:
        assert said is None
    else:
        assert said is not None
        assert reason in said


def test_a_reason_from_outside_is_cut_and_harmless() -> None:
    said = readiness(*UP, ConsumingEnded("jobs.email", "a\r\nb\x1b" + "x" * 1_000))
    assert said is not None
    assert said.startswith(r"not consuming jobs.email: a\r\nb\x1bxxx")
    assert len(said) < 400


def test_a_process_without_a_queue_need_not_consume() -> None:
    assert readiness(*UP[:2], queue=None) is None
