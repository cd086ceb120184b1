"""The demo as a process on a real broker: it ends by itself, its account is right, and it sees a loss."""

from __future__ import annotations

import asyncio
import re
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import orjson
import pytest
from aio_pika.abc import AbstractIncomingMessage

from penstock.urls import BrokerUrl
from services.demo.eye import opened
from services.demo.shop import ITEMS
from tests.support.waiting import eventually
from tests.support.working import declare, foreign, put

pytestmark = pytest.mark.timeout(150)

TOPOLOGY = """
queues:
  audit: {binds: all}
  credits: [credit.*]
  email: [email.*, digest.*]
  maintenance: [maintenance.*]
  media: [video.*, image.*]
  reports: [report.*]
  sync: [sync.*]
"""
ACCOUNT = re.compile(
    r"accounted: (\d+) published = (\d+) done \+ (\d+) dead; lost (\d+); doubled (\d+) "
    r"\(credits: (\d+) done, doubled (\d+)\)"
)
TICKS = re.compile(r"schedule heartbeat: (\d+) ticks, leader killed once, (\w+) missed, (\w+) doubled$", re.MULTILINE)


class Demo:
    """A demo that was started."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def until(self, words: str) -> None:
        """Read on until a line holds *words*."""
        async with asyncio.timeout(110):
            while words not in (line := await self._line()):
                assert line, f"the demo ended without saying {words!r}: {self.lines}"

    async def end(self) -> int:
        """Read to the end and return the exit code."""
        async with asyncio.timeout(120):
            while await self._line():
                pass
            return await self.process.wait()

    async def _line(self) -> str:
        assert self.process.stdout is not None
        line = (await self.process.stdout.readline()).decode()
        if line:
            self.lines.append(line.rstrip("\n"))
        return line


@asynccontextmanager
async def a_demo(url: str, folder: Path, *options: str) -> AsyncIterator[Demo]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.demo", "--jobs", "300", *options,
        cwd=folder,
        env={"RABBITMQ_URL": url, "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Demo(process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def nobody_consumes(url: str) -> bool:
    async with opened(BrokerUrl.parse(url)) as eye:
        names = ("email", "reports", "credits", "sync", "maintenance", "media", "audit", "scheduler")
        return not sum([await eye.consumers(f"jobs.{name}") for name in names])


async def test_every_job_is_accounted_for_through_an_outage_bad_messages_and_a_crash(
    vhost_url: str, tmp_path: Path
) -> None:
    await declare(vhost_url, TOPOLOGY)
    async with foreign(vhost_url) as channel:
        for number in range(3):
            story = {"penstock-reason": "rejected"}
            await put(
                channel,
                "jobs.email",
                b"{}",
                "jobs.dead",
                message_id=f"{number}",
                correlation_id="before",
                headers=story,
            )
    async with a_demo(vhost_url, tmp_path, "--outage", "2") as demo:
        code = await demo.end()
    said = "\n".join(demo.lines)
    found = ACCOUNT.fullmatch(demo.lines[-1])
    assert found, said
    published, done, dead, lost, doubled, credits_done, credits_doubled = map(int, found.groups())
    # 294 orders of which 6 are refused, 6 reports, 400 credits of which 4 cannot be, a pull of the shop, a round of the
    # janitor, 4 of pictures of which one is none, and 4 rounds of 10 bad messages
    assert (published, done, dead, lost) == (746, 695, 51, 0), said
    assert "the audit has recorded 706 of 706 jobs" in said
    assert re.search(r"jobs\.media\.dead +rejected +\d+ .* Invalid data found", said)
    assert "the door refused 10 of 10 bad requests" in said
    assert (credits_done, credits_doubled) == (396, 0), said
    assert code == 0
    assert ledger(_only(tmp_path, "store.db")) == (396, 396, 0), said
    mails = Counter(orjson.loads(line)["id"] for line in _only(tmp_path, "mails.ndjson").read_bytes().splitlines())
    assert len(mails) == 288
    assert mails.total() - len(mails) <= doubled
    assert len(list(_only(tmp_path, "reports").rglob("*.pdf"))) == 6
    assert pulled(_only(tmp_path, "store.db")) == ITEMS, "though the shop answers 429, 500 and half an answer"
    for victim in ("intake-1", "mailer-1", "credits-1", "scheduler-[12]"):
        assert re.search(rf"{victim} .* killed with SIGKILL and started again", said)
    [(ticks, *wrong)] = TICKS.findall(said)
    assert wrong == ["none", "none"], said
    assert int(ticks) >= 2  # one before the kill, one after it
    assert "line 61: email: must be a plain address" in said
    # A worker killed between a letter's confirm and its ack leaves it twice: the rows count letters, the account jobs.
    for words in (
        r"rejected +\d+ .* 550 5\.1\.1",
        r"decode +\d+ ",
        r"schema +\d+ ",
        r"unknown-kind +\d+ .*email\.sned",
    ):
        assert re.search(rf"jobs\.email\.dead +{words}", said), words
    assert re.search(r"jobs\.credits\.dead +rejected +\d+ .* user 999 has 0, not 100", said)
    assert await eventually(lambda: nobody_consumes(vhost_url))


async def test_a_job_that_somebody_takes_away_is_lost_and_the_demo_says_so(vhost_url: str, tmp_path: Path) -> None:
    await declare(vhost_url, TOPOLOGY)
    stolen: list[str | None] = []

    async def steal(message: AbstractIncomingMessage) -> None:
        await message.ack()
        stolen.append(message.message_id)

    async with foreign(vhost_url) as channel:
        await channel.set_qos(prefetch_count=1)
        await (await channel.get_queue("jobs.reports")).consume(steal)
        async with a_demo(vhost_url, tmp_path, "--outage", "0", "--patience", "45") as demo:
            code = await demo.end()
    found = ACCOUNT.fullmatch(demo.lines[-1])
    assert found, demo.lines
    published, done, dead, lost, *_ = map(int, found.groups())
    # The door is killed while it answers: what it had published is sent again, and the second copy may be worked on.
    made = {report.stem[-36:] for report in tmp_path.rglob("*.pdf")}  # noqa: ASYNC240 - a few
    assert lost == len(set(stolen) - made) > 0
    assert published == done + dead + lost
    assert code == 1


async def test_a_credit_that_is_booked_twice_is_seen_and_fails_the_demo(vhost_url: str, tmp_path: Path) -> None:
    await declare(vhost_url, TOPOLOGY)
    async with a_demo(vhost_url, tmp_path, "--outage", "0") as demo:
        await demo.until("two schedulers are ready")
        book_some_twice(_only(tmp_path, "store.db"))
        code = await demo.end()
    found = ACCOUNT.fullmatch(demo.lines[-1])
    assert found, demo.lines
    assert int(found[4]) == 0
    assert int(found[5]) >= int(found[7]) > 0
    assert int(found[6]) == 396
    [(_, missed, ticks_doubled)] = TICKS.findall("\n".join(demo.lines))
    assert missed == "none"
    assert int(ticks_doubled) > 0
    assert code == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_demo_that_is_stopped_leaves_nobody_behind(
    vhost_url: str, tmp_path: Path, number: signal.Signals
) -> None:
    await declare(vhost_url, TOPOLOGY)
    async with a_demo(vhost_url, tmp_path) as demo:
        await demo.until("orders: 294 mails and 6 reports published")
        demo.process.send_signal(number)
        assert await demo.end() == 1
    assert demo.lines[-1] == "demo: stopped"
    assert await eventually(lambda: nobody_consumes(vhost_url))


async def test_the_same_system_keeps_running_until_it_is_told_to_stop(vhost_url: str, tmp_path: Path) -> None:
    await declare(vhost_url, TOPOLOGY)
    async with a_demo(vhost_url, tmp_path, "--up") as demo:
        await demo.until("Logs ")
        said = "\n".join(demo.lines)
        assert not await nobody_consumes(vhost_url)
        demo.process.send_signal(signal.SIGINT)
        assert await demo.end() == 0
    assert "Management UI" in said
    assert BrokerUrl.parse(vhost_url).password not in said
    assert await eventually(lambda: nobody_consumes(vhost_url))


async def test_a_broker_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    async with a_demo("amqp://guest:guest@127.0.0.1:1/", tmp_path) as demo:
        assert await demo.end() == 3
    assert [line for line in demo.lines if line.startswith("demo: ")] == demo.lines[-1:]
    assert "Traceback" not in "\n".join(demo.lines)


def ledger(file: Path) -> tuple[int, int, int]:
    """How many entries there are but for the schedule's, of how many jobs, and by how much the balances differ from
    the gifts."""
    statement = """SELECT count(*), count(DISTINCT job_id), (SELECT sum(balance) FROM credit_accounts)
        - (SELECT sum(amount) FROM credit_entries WHERE from_user IS NULL)
        FROM credit_entries WHERE job_id NOT LIKE 'schedule:%'"""
    with closing(sqlite3.connect(file)) as connection:
        found: tuple[int, int, int] = connection.execute(statement).fetchone()
    return found


def pulled(file: Path) -> int:
    """How many items of the shop are kept."""
    with closing(sqlite3.connect(file)) as connection:
        [count] = connection.execute("SELECT count(*) FROM sync_items").fetchone()
    return int(count)


def book_some_twice(file: Path) -> None:
    """Let every further entry for two of the users, of whom one is the schedule's, be there twice."""
    with closing(sqlite3.connect(file, timeout=10)) as connection:
        connection.execute(
            """CREATE TRIGGER twice AFTER INSERT ON credit_entries WHEN NEW.to_user IN (105, 500) BEGIN
            INSERT INTO credit_entries (job_id, from_user, to_user, amount, reason)
            VALUES (NEW.job_id, NEW.from_user, NEW.to_user, NEW.amount, NEW.reason); END"""
        )


def _only(folder: Path, name: str) -> Path:
    (found,) = (folder / ".penstock" / "demo").glob(f"*/{name}")
    return found
