"""Handlers in child processes: their results, their deaths, their deadlines and the room they get."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock import Dead, Done, Outcome, Retried
from penstock.events import JobFinished
from tests.support import apps
from tests.support.apps import Do
from tests.support.processes import alive
from tests.support.waiting import eventually
from tests.support.working import Watched, empty, foreign, put, take, working

FACTORY = "tests.support.apps:build"


@pytest.fixture
async def worker(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    """A worker whose children rebuild its handlers from the factory."""
    monkeypatch.setenv(apps.EFFECTS, str(tmp_path / "effects"))
    await empty(url, "jobs.email", "jobs.email.dead")
    async with working(url, apps.handlers, factory=FACTORY, slots=4) as worker:
        yield worker
    assert _children() == set(), "the worker left processes behind"


async def run(url: str, worker: Watched, key: str, **args: Any) -> Outcome:
    """What becomes of the first attempt of such a job."""
    before = len(worker.finished)
    async with foreign(url) as channel:
        await put(channel, key, orjson.dumps(asdict(Do(**args))), message_id=str(before))
    finished = await worker.until(JobFinished, before + 1)
    outcome: Outcome = finished[before].outcome
    return outcome


def _children() -> set[int]:
    """The processes of children of this one."""
    marks = {b"penstock.child", FACTORY.encode()}
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = set((entry / "cmdline").read_bytes().split(b"\0"))
                if marks <= words and f"\nPPid:\t{os.getpid()}\n" in (entry / "status").read_text():
                    found.add(int(entry.name))
            except OSError:
                continue
    return found


async def test_an_isolated_handler_runs_in_another_process_and_its_result_comes_back(url: str, worker: Watched) -> None:
    outcomes = [await run(url, worker, "email.child", do="answer", text="caf\u00e9") for _ in range(3)]
    results = [outcome.result for outcome in outcomes if isinstance(outcome, Done)]
    assert [result["text"] for result in results] == ["café"] * 3  # type: ignore[index]  # what the handler returned
    pids = {result["pid"] for result in results}  # type: ignore[index]
    assert len(pids) == 1, "a child is kept for the next job"
    assert os.getpid() not in pids


async def test_an_error_in_a_child_is_judged_as_anywhere_and_keeps_its_traceback(url: str, worker: Watched) -> None:
    outcome = await run(url, worker, "email.child", do="raise", text="no such order")
    assert isinstance(outcome, Retried)
    assert (outcome.failure.type, outcome.failure.text) == ("ValueError", "no such order")
    assert "in _raise" in outcome.failure.traceback


async def test_a_rejection_in_a_child_is_a_dead_letter(url: str, worker: Watched) -> None:
    outcome = await run(url, worker, "email.child", do="reject", text="550")
    assert isinstance(outcome, Dead)
    async with foreign(url) as channel:
        assert (await take(channel, "jobs.email.dead")).headers["penstock-error"] == "550"


async def test_a_child_that_dies_costs_an_attempt_and_nobody_else(url: str, worker: Watched) -> None:
    ends = {"die": "ended with exit code 3", "kill": "killed by signal SIGKILL", "crash": "killed by signal SIGSEGV"}
    for deed, words in ends.items():
        outcome = await run(url, worker, "email.child", do=deed)
        assert isinstance(outcome, Retried)
        assert outcome.failure.type == "penstock.errors.JobCrashed"
        assert words in outcome.failure.text
    assert isinstance(await run(url, worker, "email.child", do="answer"), Done)


async def test_system_exit_in_a_child_is_a_failed_attempt_and_no_crash(url: str, worker: Watched) -> None:
    outcome = await run(url, worker, "email.child", do="leave")
    assert isinstance(outcome, Retried)
    assert outcome.failure.type == "SystemExit"


async def test_a_child_past_its_deadline_is_killed_with_all_it_started(
    url: str, worker: Watched, tmp_path: Path
) -> None:
    outcome = await run(url, worker, "email.child", do="hang", text=str(tmp_path / "pid"))
    assert isinstance(outcome, Retried)
    assert outcome.failure.type == "penstock.errors.JobTimeout"
    assert "ran past its deadline of 8 s and was killed" in outcome.failure.text
    grandchild = int((tmp_path / "pid").read_text())
    await eventually(lambda: not alive(grandchild))
    assert isinstance(await run(url, worker, "email.child", do="answer"), Done)


async def test_a_child_that_takes_more_memory_than_its_cap_fails_alone(url: str, worker: Watched) -> None:
    outcome = await run(url, worker, "email.capped", do="devour")
    assert isinstance(outcome, Retried)
    assert outcome.failure.type in {"MemoryError", "penstock.errors.JobCrashed"}
    assert isinstance(await run(url, worker, "email.capped", do="answer"), Done)


async def test_a_child_whose_machine_allows_less_than_its_cap_runs_with_that(url: str, worker: Watched) -> None:
    await run(url, worker, "email.child", do="answer")
    [child] = _children()
    less = apps.CAP - 4096
    resource.prlimit(child, resource.RLIMIT_AS, (less, less))
    assert isinstance(await run(url, worker, "email.capped", do="answer"), Done)
    assert _children() == {child}


async def test_children_run_side_by_side_and_no_more_than_there_are_slots(url: str, worker: Watched) -> None:
    async with foreign(url) as channel:
        for number in range(12):
            body = orjson.dumps(asdict(Do(do="answer")))
            await put(channel, "email.child", body, message_id=f"job-{number}")
    finished = await worker.until(JobFinished, 12)
    pids = {event.outcome.result["pid"] for event in finished}
    assert 1 < len(pids) <= 4
    assert pids == _children()


async def test_a_child_that_died_while_it_waited_costs_no_attempt(url: str, worker: Watched) -> None:
    await run(url, worker, "email.child", do="answer")
    [child] = _children()
    os.kill(child, signal.SIGKILL)
    await eventually(lambda: not Path(f"/proc/{child}").exists())
    assert isinstance(await run(url, worker, "email.child", do="answer"), Done)


async def test_any_header_reaches_the_child(url: str, worker: Watched) -> None:
    headers = {"raw": bytearray(b"\xff\x00"), "list": [1, "two", None], "table": {"bytes": "no"}, "flag": True}
    async with foreign(url) as channel:
        await put(channel, "email.child", b'{"do": "answer"}', headers=headers)
    [finished] = await worker.until(JobFinished)
    assert isinstance(finished.outcome, Done)


async def test_a_job_is_not_blamed_for_a_child_that_cannot_start(url: str) -> None:
    await empty(url, "jobs.email", "jobs.email.dead")
    async with working(url, apps.handlers, factory="tests.support.apps:no_such_factory") as worker:
        outcome = await run(url, worker, "email.child", do="answer")
    assert isinstance(outcome, Retried)
    assert outcome.failure.type == "penstock.runners.children.ChildNotStarted"
    assert "no_such_factory ended with exit code" in outcome.failure.text
