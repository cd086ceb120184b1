"""What users test their handlers with: the real worker, a broker in memory, a clock that is turned."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta

import pytest

from penstock import (
    ConfigError,
    Dead,
    DeadReason,
    Done,
    Handlers,
    Job,
    JobKind,
    Reject,
    Retry,
    RetryPolicy,
    Snooze,
    Unroutable,
    Worker,
)
from penstock.message import Message
from penstock.testing import ManualClock, MemoryBroker, WorkerTest
from penstock.topology.build import build
from penstock.topology.reading import parse_spec
from penstock.topology.spec import QueueSpec, Spec

SECOND = timedelta(seconds=1)
STEADY = RetryPolicy(jitter=0)


@dataclass(frozen=True)
class Note:
    text: str


NOTE = JobKind("note.take", Note)


class Script:
    """A handler that raises what it is told to, run by run, and remembers when it ran (seconds of the test's clock)."""

    def __init__(self, *ends: Exception | None, policy: RetryPolicy = STEADY) -> None:
        self.clock = ManualClock()
        self.runs: list[tuple[float, int]] = []
        self.handlers = Handlers()
        self._ends = list(ends)
        self._start = self.clock.now_ms()
        self.handlers.on(NOTE, retry=policy)(self.handle)

    async def handle(self, job: Job[Note]) -> None:
        self.runs.append(((self.clock.now_ms() - self._start) / 1000, job.attempt))
        end = self._ends.pop(0) if self._ends else None
        if end is not None:
            raise end

    def test(self, **options: object) -> WorkerTest:
        return WorkerTest(self.handlers, queue="notes", clock=self.clock, **options)  # type: ignore[arg-type]  # any


async def test_a_published_job_runs_and_is_done() -> None:
    async with Script().test() as t:
        receipt = await t.publish(NOTE, Note("a"))
        await t.settled()
        (finished,) = t.done
        assert (finished.id, finished.kind, finished.attempt) == (receipt.id, "note.take", 1)
        assert not t.delayed


async def test_a_failing_job_is_tried_again_after_1_10_and_100_seconds_and_then_dead() -> None:
    script = Script(*[ValueError("no")] * 4)
    async with script.test() as t:
        await t.publish(NOTE, Note("a"))
        await t.settled()
        assert len(t.delayed) == 1
        await t.advance(timedelta(hours=1))
        assert script.runs == [(0, 1), (1, 2), (11, 3), (111, 4)]
        assert len(t.retried) == 3
        (letter,) = t.dead_letters
        assert letter.headers["penstock-reason"] == "exhausted"
        assert letter.headers["penstock-error"] == "no"
        assert not t.delayed


async def test_a_retry_comes_when_the_handler_says() -> None:
    script = Script(Retry(after=timedelta(seconds=42)))
    async with script.test() as t:
        await t.publish(NOTE, Note("a"))
        await t.advance(timedelta(seconds=41))
        assert not t.done
        await t.advance(SECOND)
        assert script.runs == [(0, 1), (42, 2)]
        assert len(t.done) == 1


async def test_a_snoozed_job_comes_back_at_no_cost() -> None:
    script = Script(Snooze(after=timedelta(days=3)))
    async with script.test() as t:
        await t.publish(NOTE, Note("a"))
        await t.advance(timedelta(days=3))
        assert script.runs == [(0, 1), (259200, 1)]
        assert (len(t.snoozed), len(t.done)) == (1, 1)


async def test_a_rejected_job_is_dead_at_once() -> None:
    async with Script(Reject("never")).test() as t:
        await t.publish(NOTE, Note("a"))
        await t.settled()
        (finished,) = t.dead
        assert isinstance(finished.outcome, Dead)
        assert finished.outcome.reason is DeadReason.REJECTED
        assert len(t.dead_letters) == 1


@pytest.mark.parametrize("seconds", [1, 7, 100, 86399, 16_000_000])
async def test_a_delayed_job_runs_at_its_second_and_not_before(seconds: int) -> None:
    script = Script()
    async with script.test() as t:
        await t.publish(NOTE, Note("a"), delay=timedelta(seconds=seconds))
        await t.advance(timedelta(seconds=seconds, milliseconds=-1))
        assert not script.runs
        assert len(t.delayed) == 1
        await t.advance(timedelta(milliseconds=1))
        assert script.runs == [(seconds, 1)]


async def test_a_job_for_an_instant_runs_then() -> None:
    script = Script()
    async with script.test() as t:
        await t.publish(NOTE, Note("a"), at=t.now() + timedelta(minutes=5))
        await t.advance(timedelta(minutes=10))
        assert script.runs == [(300, 1)]


async def test_a_job_that_expired_is_not_run() -> None:
    script = Script()
    async with script.test() as t:
        await t.publish(NOTE, Note("a"), delay=10 * SECOND, expires=5 * SECOND)
        await t.advance(timedelta(minutes=1))
        assert len(t.expired) == 1
        assert not script.runs


async def test_a_bare_message_of_a_foreign_producer_runs() -> None:
    script = Script()
    async with script.test() as t:
        await t.send(Message(b'{"text": "from elsewhere"}'), "note.take")
        await t.settled()
        assert len(t.done) == 1


async def test_a_broken_message_is_a_dead_letter() -> None:
    async with Script().test() as t:
        await t.send(Message(b"{"), "note.take")
        await t.settled()
        assert [letter.headers["penstock-reason"] for letter in t.dead_letters] == ["decode"]


async def test_an_unknown_kind_waits_for_its_grace_and_is_dead_then() -> None:
    spec = Spec((QueueSpec("notes", ("note.*",)),))
    async with Script().test(spec=spec) as t:
        await t.send(Message(b"{}"), "note.unheard")
        await t.advance(timedelta(minutes=4))
        assert not t.dead
        assert t.snoozed
        await t.advance(timedelta(minutes=2))
        assert [letter.headers["penstock-reason"] for letter in t.dead_letters] == ["unknown-kind"]


async def test_a_kind_that_no_queue_takes_comes_back_to_the_producer_or_lies_unrouted_when_due() -> None:
    async with Script().test() as t:
        other = JobKind("other.kind", Note)
        with pytest.raises(Unroutable):
            await t.publish(other, Note("a"))
        await t.publish(other, Note("a"), delay=5 * SECOND)
        await t.advance(5 * SECOND)
        assert len(t.unrouted) == 1


async def test_handlers_in_threads_are_waited_for() -> None:
    handlers = Handlers()

    @handlers.on(NOTE)
    def slowly(job: Job[Note]) -> str:
        time.sleep(0.05)
        return job.args.text

    async with WorkerTest(handlers, slots=2) as t:
        for number in range(6):
            await t.publish(NOTE, Note(str(number)))
        await t.settled()
        assert sorted(str(run.outcome.result) for run in t.done if isinstance(run.outcome, Done)) == list("012345")


async def test_a_worker_from_a_factory_is_put_on_the_clock_of_the_test() -> None:
    script = Script(ValueError("no"))
    async with WorkerTest(Worker(script.handlers, queue="notes"), clock=script.clock) as t:
        receipt = await t.publish(NOTE, Note("a"), expires=timedelta(days=1))
        await t.advance(timedelta(hours=1))
        assert script.runs == [(0, 1), (1, 2)]
        assert [run.id for run in t.done] == [receipt.id]


async def test_a_retry_is_not_seen_by_another_queue_of_the_same_kind() -> None:
    mailing, auditing = Script(ValueError("no")), Script()
    broker = MemoryBroker(build(parse_spec("queues: {notes: [note.*], audit: [note.take]}")), mailing.clock)
    async with (
        WorkerTest(mailing.handlers, queue="notes", clock=mailing.clock, broker=broker) as t,
        WorkerTest(auditing.handlers, queue="audit", clock=mailing.clock, broker=broker) as other,
    ):
        await t.publish(NOTE, Note("a"))
        await t.advance(timedelta(minutes=1))
        assert (len(t.finished), len(other.finished)) == (2, 1)


async def test_a_worker_that_cannot_start_says_why() -> None:
    with pytest.raises(ConfigError, match="no handlers"):
        async with WorkerTest(Handlers()):
            pytest.fail("it started")


async def test_a_handler_left_running_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.testing.worker_test.DRAIN", timedelta(milliseconds=50))
    handlers = Handlers()
    begun: list[str] = []

    @handlers.on(NOTE)
    async def hang(job: Job[Note]) -> None:
        begun.append(job.id)
        await asyncio.Event().wait()

    t = WorkerTest(handlers)

    async def use() -> None:
        async with t:
            await t.publish(NOTE, Note("a"))
            async with asyncio.timeout(5):
                while not begun:  # noqa: ASYNC110 - a turn of this very loop
                    await asyncio.sleep(0)

    with pytest.raises(TimeoutError, match="still ran"):
        await use()
    assert len(t.broker.ready("jobs.test")) == 1


async def test_outside_of_its_block_it_refuses_to_wait() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await WorkerTest(Script().handlers).settled()
