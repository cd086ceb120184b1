"""What a real worker and a real relay show over HTTP, in good days and bad ones."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from penstock import Events, metrics
from penstock.testing.free_ports import free_ports
from tests.integration.conftest import Fragile
from tests.support.apps import Do
from tests.support.once_apps import Credit, with_a_ledger
from tests.support.outboxes import MAIL, add_all, migrated
from tests.support.postgres import StartPostgres
from tests.support.processes import ROOT, WorkerProcess, worker_process
from tests.support.scrapes import Page, connected, get, ports_in
from tests.support.waiting import eventually
from tests.support.working import LEVELS, empty, foreign, put

pytestmark = pytest.mark.timeout(120)

ASYNC = '{kind="email.async",%s,queue="jobs.email"}'
DOCS = ROOT / "docs" / "metrics.md"


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", "jobs.email.dead", *LEVELS)


@asynccontextmanager
async def scraped(url: str, folder: Path, **settings: str) -> AsyncIterator[tuple[WorkerProcess, int]]:
    """A worker process, and the port it serves."""
    async with worker_process(url, folder, PENSTOCK_METRICS_PORT="0", **settings) as worker:
        yield worker, (await ports_in(worker.log))[0]


async def put_jobs(url: str, count: int, key: str = "email.async", **args: Any) -> None:
    """Publish *count* jobs that do what *args* say."""
    async with foreign(url) as channel:
        for number in range(count):
            await put(channel, key, orjson.dumps(asdict(Do(**args))), message_id=f"secret-id-{number}")


async def fresh(port: int, sample: str, value: float, *, or_more: bool = False) -> Page:
    """The first page of metrics on which *sample* has *value*."""

    async def look() -> Page | None:
        page = await get(port, "/metrics")
        found = page.value(sample)
        return page if found == value or (or_more and (found or 0) > value) else None

    page = await eventually(look, within=40)
    assert page is not None
    return page


async def says(port: int, status: int, words: str) -> None:
    """Wait until the process is ready or not, for that reason."""

    async def look() -> bool:
        page = await get(port, "/readyz")
        return page.status == status and words in page.body

    await eventually(look, within=30)


@contextmanager
def running(log: Path, *command: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """``penstock`` with *command*, logging into *log*; it is gone after the block."""
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", *command],
            cwd=ROOT,
            env={**os.environ, **settings},
            stdout=file,
            stderr=file,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def documented(role: str) -> set[str]:
    """The metrics that the docs say a process of *role* has."""
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]*) \|", DOCS.read_text(), re.MULTILINE)
    return {name for name, roles in rows if role in roles.split(", ")}


async def test_a_worker_shows_the_documented_metrics_and_counts_what_it_does(url: str, tmp_path: Path) -> None:
    async with scraped(url, tmp_path) as (_, port):
        first = await get(port, "/metrics")
        assert first.families == documented("worker")
        assert first.value('penstock_broker_connected{connection="consume"}') == 1
        assert first.value('penstock_consuming{queue="jobs.email"}') == 1
        await put_jobs(url, 3)
        await put_jobs(url, 1, do="reject")
        await put_jobs(url, 1, key="email.unheard")
        page = await fresh(port, "penstock_jobs_total" + ASYNC % 'outcome="done"', 3)
        await fresh(port, 'penstock_ack_batch_jobs_sum{queue="jobs.email"}', 4, or_more=True)
        page = await fresh(port, "penstock_jobs_total" + ASYNC % 'outcome="dead"', 1)
        assert page.value('penstock_dead_letters_total{queue="jobs.email",reason="rejected"}') == 1
        failures = (
            'penstock_attempt_failures_total{error="penstock.errors.Reject",kind="email.async",queue="jobs.email"}'
        )
        assert page.value(failures) == 1
        assert page.value('penstock_run_seconds_count{kind="email.async",queue="jobs.email"}') == 4
        await fresh(port, 'penstock_in_progress{kind="email.async",queue="jobs.email"}', 0)
        snoozed = 'penstock_jobs_total{kind="email.unheard",outcome="snoozed",queue="jobs.email"}'
        await fresh(port, snoozed, 1, or_more=True)
        assert page.families == first.families
        assert "secret-id" not in page.body


async def test_a_relay_shows_the_documented_metrics_and_whether_it_is_ready(url: str, tmp_path: Path) -> None:
    where = await migrated(f"sqlite:///{tmp_path}/store.db")
    add_all(where, MAIL, range(3))
    log = tmp_path / "relay.log"
    settings = {"RABBITMQ_URL": url, "PENSTOCK_STORE_URL": where, "PENSTOCK_METRICS_PORT": "0"}
    with running(log, "outbox", "run", **settings) as relay:
        [port] = await ports_in(log)
        await says(port, 200, "ready")
        page = await fresh(port, f'penstock_outbox_relayed_total{{kind="{MAIL.name}",result="published"}}', 3)
        assert page.families == documented("relay")
        assert (page.value("penstock_store_up"), page.value("penstock_outbox_parked_jobs")) == (1, 0)
        relay.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(relay.wait, 20) == 0


SHOP = """
from prometheus_client import REGISTRY, Counter

from penstock import Handlers, Job, JobKind, Worker, metrics

MAILS = Counter("mails", "Mails sent.", ["template"])


class Broken:
    def describe(self):
        return []

    def collect(self):
        raise RuntimeError("no database")


REGISTRY.register(Broken())
handlers = Handlers()


@handlers.on(JobKind("email.send", dict))
async def send(job: Job[dict[str, str]]) -> None:
    MAILS.labels(job.args["template"]).inc()


def build() -> Worker:
    worker = Worker(handlers, queue="email")
    metrics.subscribe(worker.events)
    return worker
"""


async def test_what_handlers_count_themselves_is_on_the_page_of_their_worker(url: str, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    log = tmp_path / "worker.log"
    settings = {"RABBITMQ_URL": url, "PENSTOCK_METRICS_PORT": "0", "PYTHONPATH": str(tmp_path)}
    with running(log, "worker", "shop:build", **settings):
        [port] = await ports_in(log)
        async with foreign(url) as channel:
            await put(channel, "email.send", b'{"template": "welcome"}')
        page = await fresh(port, 'mails_total{template="welcome"}', 1)
        assert page.families == documented("worker") | {"mails_total", "mails_created"}
        assert len(re.findall("^# TYPE penstock_published_total", page.body, re.MULTILINE)) == 1
        assert "metrics of handlers cannot be read" in log.read_text()


def test_a_publisher_shows_the_documented_metrics() -> None:
    registry = CollectorRegistry()
    metrics.subscribe(Events(), registry)
    assert Page(200, {}, generate_latest(registry).decode()).families == documented("publisher")


async def test_a_draining_worker_is_alive_and_not_ready(url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with scraped(url, tmp_path) as (worker, port):
        await says(port, 200, "ready")
        await put_jobs(url, 1, gate=str(gate))
        await eventually(lambda: worker.ledger.read("begun"))
        worker.signal(signal.SIGTERM)
        await says(port, 503, "not ready: draining")
        assert (await get(port, "/healthz")).status == 200
        page = await fresh(port, 'penstock_in_progress{kind="email.async",queue="jobs.email"}', 1)
        assert page.value('penstock_consuming{queue="jobs.email"}') == 0
        gate.touch()
        assert await worker.ended() == 0
        with pytest.raises(ConnectionRefusedError):
            await get(port, "/healthz")


async def test_a_worker_without_its_broker_is_alive_and_not_ready_and_comes_back(
    fragile: Fragile, tmp_path: Path
) -> None:
    async with scraped(fragile.url, tmp_path) as (_, port):
        await says(port, 200, "ready")
        fragile.kill()
        await says(port, 503, "not ready: not connected as ")
        assert (await get(port, "/healthz")).status == 200
        await fresh(port, 'penstock_broker_connected{connection="consume"}', 0)
        fragile.start()
        await says(port, 200, "ready")
        page = await fresh(port, 'penstock_broker_reconnects_total{connection="consume"}', 1)
        assert page.value('penstock_broker_connected{connection="publish"}') == 1
        assert page.value('penstock_consumers_lost_total{queue="jobs.email"}') == 1


async def test_a_worker_whose_copies_an_alarm_holds_back_shows_that_it_is_blocked(
    fragile: Fragile, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with scraped(fragile.url, tmp_path) as (worker, port):
        await put_jobs(fragile.url, 1, gate=str(gate), fail_attempts=1)
        await eventually(lambda: worker.ledger.read("begun"))
        with fragile.blocked():
            gate.touch()  # the broker blocks a connection when it publishes
            await fresh(port, 'penstock_broker_blocked{connection="publish"}', 1)
        await fresh(port, 'penstock_broker_blocked{connection="publish"}', 0)
        # Twice, where the alarm lasted longer than one try of the copy.
        await fresh(port, "penstock_jobs_total" + ASYNC % 'outcome="done"', 1, or_more=True)
    told = worker.log.read_text()
    assert "the broker takes no messages" in told
    assert "the broker takes messages again" in told


async def test_a_worker_without_its_store_is_alive_and_not_ready_and_comes_back(
    url: str, own_postgres: StartPostgres, tmp_path: Path
) -> None:
    server = own_postgres()
    store = await with_a_ledger(server.new_database())
    settings = {"module": "tests.support.once_apps", "PENSTOCK_STORE_URL": store}
    async with scraped(url, tmp_path, **settings) as (_, port):
        await says(port, 200, "ready")
        await put_credit(url, "first")
        page = await fresh(port, 'penstock_jobs_total{kind="email.loop",outcome="done",queue="jobs.email"}', 1)
        assert page.families == documented("worker")
        assert page.value("penstock_store_up") == 1
        for operation in ("claim", "commit"):
            assert page.value(f'penstock_store_seconds_count{{operation="{operation}"}}') == 1
        server.kill()
        await put_credit(url, "second")
        await says(port, 503, "does not answer")
        assert (await get(port, "/healthz")).status == 200
        await fresh(port, "penstock_store_up", 0)
        server.start()
        await says(port, 200, "ready")
        await fresh(port, 'penstock_jobs_total{kind="email.loop",outcome="done",queue="jobs.email"}', 2)


async def put_credit(url: str, job_id: str) -> None:
    """Publish a job whose effect is in the store."""
    async with foreign(url) as channel:
        await put(channel, "email.loop", orjson.dumps(asdict(Credit(1, 1))), message_id=job_id)


async def test_a_worker_whose_loop_is_stuck_does_not_answer(url: str, tmp_path: Path) -> None:
    child = tmp_path / "pid"
    async with scraped(url, tmp_path) as (_, port):
        assert (await get(port, "/healthz")).status == 200
        await put_jobs(url, 1, do="hang", text=str(child))
        await eventually(lambda: child.exists() and child.read_text(), within=20)
        with pytest.raises(TimeoutError):
            await get(port, "/healthz", within=1.5)
    os.kill(int(child.read_text()), signal.SIGKILL)


async def test_a_thousand_scrapes_and_slow_readers_harm_no_job(url: str, tmp_path: Path) -> None:
    async with scraped(url, tmp_path) as (worker, port), connected(port) as (_, silent), connected(port) as (_, slow):
        silent.write(b"GET /met")
        slow.write(b"GET /metrics HTTP/1.1\r\n\r\n")  # and never reads the answer
        gate = asyncio.Semaphore(50)

        async def scrape() -> int:
            async with gate:
                return (await get(port, "/metrics", within=30)).status

        scrapes = asyncio.gather(*(scrape() for _ in range(1_000)))
        await put_jobs(url, 200)
        assert set(await scrapes) == {200}
        await eventually(lambda: len(worker.ledger.read("done")) == 200, within=30)
        await says(port, 200, "ready")


async def test_kinds_and_texts_from_outside_cannot_spoil_the_page(url: str, tmp_path: Path) -> None:
    async with scraped(url, tmp_path) as (_, port):
        async with foreign(url) as channel:
            for number in range(300):
                await put(channel, f"email.k{number}", b"{}")
            await put(channel, "email.async", b"{}", type='email."}\n# HELP x\x1b[2J')
        label = '{kind="other",outcome="snoozed",queue="jobs.email"}'

        async def judged() -> Page | None:
            page = await get(port, "/metrics")
            return page if (page.value(f"penstock_jobs_total{label}") or 0) >= 251 else None

        page = await eventually(judged, within=30)
        assert page is not None
        assert page.families == documented("worker")
        assert len(page.body) < 500_000
        assert "\x1b" not in page.body


async def test_every_process_has_a_port_of_its_own(url: str, tmp_path: Path) -> None:
    base = two_free_ports()
    log = tmp_path / "log"
    settings = {"RABBITMQ_URL": url, "PENSTOCK_METRICS_PORT": str(base), "PENSTOCK_TEST_EFFECTS": str(tmp_path / "x")}
    command = ("worker", "tests.support.apps:build", "--processes", "2")
    with running(log, *command, PENSTOCK_TOPOLOGY=str(tmp_path / "none.yaml"), **settings) as parent:
        assert sorted(await ports_in(log, 2)) == [base, base + 1]
        for port in (base, base + 1):
            await says(port, 200, "ready")
        parent.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(parent.wait, 20) == 0


def two_free_ports() -> int:
    """The first of two neighbours that nobody has."""
    ports = set(free_ports(400))
    return next(port for port in ports if port + 1 in ports)


def run_worker(tmp_path: Path, *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A worker that cannot start."""
    return subprocess.run(
        [sys.executable, "-m", "penstock", "worker", "tests.support.apps:build", *flags],
        cwd=ROOT,
        env={**os.environ, "RABBITMQ_URL": "amqp://127.0.0.1:1", "PENSTOCK_TOPOLOGY": str(tmp_path / "no"), **settings},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_port_that_cannot_be_had_ends_the_worker_with_5_and_the_variables_name(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_worker(tmp_path, PENSTOCK_METRICS_PORT=str(taken.getsockname()[1]))
    assert (done.returncode, "which PENSTOCK_METRICS_PORT names" in done.stderr) == (5, True)
    assert run_worker(tmp_path, PENSTOCK_METRICS_PORT="65536").returncode == 5
    many = run_worker(tmp_path, "--processes", "3", PENSTOCK_METRICS_PORT="65534")
    assert (many.returncode, "3 processes need 3 ports from 65534 on" in many.stderr) == (5, True)


async def test_a_worker_that_was_given_no_port_serves_none(url: str, tmp_path: Path) -> None:
    async with worker_process(url, tmp_path) as worker:
        await eventually(lambda: '"ready"' in worker.log.read_text())
        assert "serving metrics" not in worker.log.read_text()


@pytest.mark.parametrize("key", ["email.async", "email.thread", "email.child"])
async def test_what_a_handler_logs_says_for_which_job_wherever_it_runs(url: str, tmp_path: Path, key: str) -> None:
    async with worker_process(url, tmp_path) as worker:
        await put_jobs(url, 1, key=key, do="log", text="a handler's word")

        def told() -> list[dict[str, Any]]:
            written = worker.log.read_bytes().rpartition(b"\n")[0]
            lines = [orjson.loads(line) for line in written.splitlines() if line.startswith(b"{")]
            return [line for line in lines if line["event"] == "a handler's word"]

        [line] = await eventually(told, within=30)
    assert (line["job_id"], line["kind"], line["queue"], line["attempt"]) == ("secret-id-0", key, "jobs.email", 1)
