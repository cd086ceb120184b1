"""That those who count jobs many at a time count the same as those who hear of each."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import CollectorRegistry

from penstock import Handlers, Job, JobKind, Reject, Retry, RetryPolicy, Snooze, Worker, metrics
from penstock import headers as h
from penstock.events import JobsBegun, JobsDone, JobStarted
from penstock.message import Message
from penstock.testing import WorkerTest
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Note:
    text: str


NOTE = JobKind("note.take", Note)
LABELS = {"kind": "note.take", "queue": "jobs.notes"}
SECOND = timedelta(seconds=1)


class Counted:
    """A worker whose handler does what a job's text says, and its metrics."""

    def __init__(self) -> None:
        handlers = Handlers()
        handlers.on(NOTE, retry=RetryPolicy(first=SECOND, jitter=0))(self.take)
        self.worker = Worker(handlers, queue="notes", slots=4)
        self.registry = CollectorRegistry()
        self.go_on = asyncio.Event()
        metrics.subscribe(self.worker.events, self.registry, role="worker")

    async def take(self, job: Job[Note]) -> None:
        match job.args.text:
            case "fail once" if job.attempt == 1:
                raise Retry
            case "snooze once" if job.copy == 0:
                raise Snooze(after=SECOND)
            case "reject":
                raise Reject("no")
            case "wait":
                await self.go_on.wait()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"penstock_{name}", {**LABELS, **labels})


async def test_what_is_counted_is_what_was_finished() -> None:
    counted = Counted()
    async with WorkerTest(counted.worker) as t:
        for text in ("done", "done", "fail once", "snooze once", "reject"):
            await t.publish(NOTE, Note(text))
        again = Message(b'{"text": "done"}', {h.ATTEMPT: 2, h.PUBLISHED: t.clock.now_ms()}, "again", NOTE.name)
        await t.send(again, NOTE.name)
        await t.settled()
        await t.advance(10 * SECOND)
        assert (len(t.done), len(t.finished)) == (5, 8)
    assert counted.value("jobs_total", outcome="done") == 5
    assert [counted.value("attempts_total", result=word) for word in ("done", "failed", "put_off")] == [5, 2, 1]
    assert counted.value("run_seconds_count") == 8
    assert counted.value("wait_seconds_count") == 5, "only the first attempt's wait is the queue's"
    assert counted.value("end_to_end_seconds_count") == 6, "a retried job has not ended"
    assert [counted.value("job_attempts_bucket", le=bound) for bound in ("1.0", "2.0")] == [4, 6]
    assert counted.value("in_progress") == 0


async def test_what_runs_is_told_while_it_runs() -> None:
    counted = Counted()
    async with WorkerTest(counted.worker) as t:
        await t.publish(NOTE, Note("done"))  # with the first one done the worker takes more at once
        await t.settled()
        for _ in range(3):
            await t.publish(NOTE, Note("wait"))
        assert await eventually(lambda: counted.value("in_progress") == 3)
        assert counted.value("wait_seconds_count") == 4
        assert counted.value("run_seconds_count") == 1
        counted.go_on.set()
        await t.settled()
        assert await eventually(lambda: counted.value("in_progress") == 0)


async def test_no_more_than_some_hundred_jobs_are_kept_to_be_told() -> None:
    counted, told = Counted(), list[JobsDone]()
    counted.worker.events.subscribe(told.append, JobsDone)
    async with WorkerTest(counted.worker) as t:
        for _ in range(600):
            await t.publish(NOTE, Note("done"))
        await t.settled()
        assert len(told) >= 2
    assert sum(len(event.runs) for event in told) == 600
    assert max(len(event.runs) for event in told) == 256


async def test_nobody_is_told_of_each_job_who_only_counts() -> None:
    counted, each = Counted(), list[object]()
    assert not counted.worker.events.wants(JobStarted)
    counted.worker.events.subscribe(each.append, JobStarted, JobsBegun)
    async with WorkerTest(counted.worker) as t:
        await t.publish(NOTE, Note("done"))
        await t.settled()
    assert [event.wait is not None for event in each if isinstance(event, JobStarted)] == [True]
    assert [len(event.waits) for event in each if isinstance(event, JobsBegun)] == [1]
