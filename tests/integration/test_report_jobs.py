"""Reports as jobs: from a message to files and a result, through databases that are away and a child that is killed."""

from __future__ import annotations

import asyncio
import csv
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook
from pypdf import PdfReader

from penstock import AsyncPublisher, Dead, DeadReason, Done, Results, Retried
from penstock.connect import store_for
from penstock.events import JobFinished
from penstock_jobs import TABLE_REPORT, TableReport
from services.reports.app import build
from tests.support.outboxes import migrated
from tests.support.postgres import StartPostgres, sleeps
from tests.support.reports import execute, many, yaml_of
from tests.support.waiting import eventually
from tests.support.working import Watched, empty, working

FACTORY = "services.reports.app:build"

Place = Callable[..., None]


@pytest.fixture(name="out")
async def _out(our_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the files of reports appear; the store is there, and nothing waits in the queue."""
    monkeypatch.setenv("REPORTS_OUTPUT_DIR", str(tmp_path / "out"))
    monkeypatch.setenv("REPORTS_DEFINITIONS", str(tmp_path / "reports.yaml"))
    monkeypatch.setenv("PENSTOCK_STORE_URL", await migrated(f"sqlite:///{tmp_path}/store.db"))
    await empty(our_url, "jobs.reports", "jobs.reports.dead")
    return tmp_path / "out"


def defined(monkeypatch: pytest.MonkeyPatch, out: Path, url: str, *definitions: str) -> None:
    """Let there be reports by these *definitions* on the database at *url*."""
    (out.parent / "reports.yaml").write_text(f"reports:\n{''.join(definitions)}")
    monkeypatch.setenv("REPORTS_DATABASES", f"shop={url}")


def reporting(url: str) -> Any:
    """A worker for reports, as it is shipped, in whose children they are made."""
    store = store_for(os.environ["PENSTOCK_STORE_URL"])
    return working(url, build().handlers, queue="reports", factory=FACTORY, store=store, slots=1)


async def ask(url: str, worker: Watched, job_id: str, finished: int, **args: Any) -> JobFinished:
    """Publish a report, and what became of it, as the job number *finished* of this worker."""
    async with AsyncPublisher(url) as publisher:
        await publisher.publish(TABLE_REPORT, TableReport.model_validate(args), id=job_id)
    return (await worker.until(JobFinished, finished))[finished - 1]  # type: ignore[no-any-return]


def files(out: Path, report: str) -> list[str]:
    """The names of what is seen of a report's files."""
    folder = out / report
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) if folder.exists() else []


def drafts(out: Path) -> int:
    """How many folders with drafts there are."""
    return sum(path.is_dir() for path in out.rglob(".*.part"))


async def test_a_job_becomes_files_and_a_result_and_a_wrong_one_a_dead_letter_with_the_reason(
    our_url: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"sqlite:///{out.parent}/shop.db"
    execute(place, "CREATE TABLE orders (id INTEGER)")
    defined(monkeypatch, out, place, many(place), yaml_of("broken", "SELECT a FROM nowhere", "{a: {}}"))
    async with reporting(our_url) as worker, Results(os.environ["PENSTOCK_STORE_URL"]) as results:
        formats = ["csv", "xlsx", "pdf"]
        done = await ask(our_url, worker, "job/1", 1, report="many", parameters={"rows": 1500}, formats=formats)
        result = await results.wait("job/1", timeout=timedelta(seconds=20))
        wrong: list[dict[str, Any]] = [
            {"report": "many", "parameters": {"rows": "all"}},
            {"report": "mayn", "parameters": {}},
            {"report": "broken"},
        ]
        for number, args in enumerate(wrong, start=2):
            await ask(our_url, worker, f"job-{number}", number, **args)
    assert isinstance(done.outcome, Done)
    assert result.value == {
        "files": [f"many/many-job%2F1.{format_}" for format_ in formats],
        "rows": 1500,
        "left_out": 1000,
        "sheets": 1,
        "cut": 0,
        "replaced": 0,
    }
    table, book, document = (out / file for file in result.value["files"])
    found = list(csv.reader(table.read_text().splitlines()))
    assert found[:2] == [
        ["id", "customer", "day", "amount", "note", "paid"],
        ["1", "customer 1", "2026-01-02", "0.01", "a note on order 1", "true"],
    ]
    assert len(found) == 1501
    sheet = load_workbook(book).active
    assert sheet is not None
    assert sheet.max_row == 1501
    assert "1,000 of 1,500 rows are left out here" in PdfReader(document).pages[-1].extract_text()
    assert files(out, "broken") == []
    assert drafts(out) == 0
    dead = [event.outcome for event in worker.finished[1:]]
    assert [(outcome.reason, outcome.failure.text) for outcome in dead if isinstance(outcome, Dead)] == [
        (DeadReason.REJECTED, "report many: rows must be a whole number"),
        (DeadReason.REJECTED, "there is no report mayn in REPORTS_DEFINITIONS; did you mean many?"),
        (DeadReason.REJECTED, f"report broken: {place}: no such table: nowhere"),
    ]


async def test_a_database_that_goes_away_costs_an_attempt_and_the_report_is_made_when_it_is_back(
    our_url: str, out: Path, own_postgres: StartPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = own_postgres()
    defined(monkeypatch, out, server.url(), many(server.url()))
    server.stop()
    monkeypatch.setenv("REPORTS_ATTEMPTS", "50")  # while the server starts
    monkeypatch.setenv("REPORTS_RETRY_FACTOR", "1")
    async with reporting(our_url) as worker:
        first = await ask(our_url, worker, "away", 1, report="many", parameters={"rows": 10}, formats=["csv"])
        assert isinstance(first.outcome, Retried)
        assert first.outcome.failure.type.endswith("DatabaseAway")
        assert drafts(out) == 0
        await asyncio.to_thread(server.start)
        await eventually(lambda: isinstance(worker.finished[-1].outcome, Done), within=60)
    assert len((out / "many/many-away.csv").read_text().splitlines()) == 11


async def test_a_killed_child_leaves_no_half_of_a_file_and_no_query_and_the_next_attempt_makes_the_report(
    our_url: str, out: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(postgres_url, "CREATE TABLE pace (seconds FLOAT8)", "INSERT INTO pace VALUES (600)")
    slow = "SELECT n AS a, pg_sleep(seconds)::text AS b FROM generate_series(1, 3) AS n, pace"
    defined(monkeypatch, out, postgres_url, yaml_of("slow", slow, "{a: {type: integer}, b: {}}"))
    async with reporting(our_url) as worker:
        asked = asyncio.create_task(ask(our_url, worker, "killed", 1, report="slow", formats=["csv", "xlsx"]))
        await eventually(lambda: sleeps(postgres_url), within=20)
        assert drafts(out) == 1
        os.kill(child(), signal.SIGKILL)
        first = await asked
        assert isinstance(first.outcome, Retried)
        assert first.outcome.failure.type.endswith("JobCrashed")
        assert (files(out, "slow"), drafts(out)) == ([], 1)
        execute(postgres_url, "UPDATE pace SET seconds = 0")
        second = (await worker.until(JobFinished, 2))[1]
    assert isinstance(second.outcome, Done)
    assert (files(out, "slow"), drafts(out)) == (["slow-killed.csv", "slow-killed.xlsx"], 0)
    await eventually(lambda: not sleeps(postgres_url), within=20)


def child() -> int:
    """The process in which this one's worker makes reports."""
    children = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    [pid] = [pid for pid in children if FACTORY.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return int(pid)
