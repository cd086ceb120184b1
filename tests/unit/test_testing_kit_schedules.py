"""``WorkerTest`` publishes what schedules ask for when the clock of the test is turned to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from penstock import Handlers, Job, JobKind, PublishError, RetryPolicy
from penstock.events import JobFinished
from penstock.testing import (
    ManualClock,
    MemoryBroker,
    Schedule,
    WorkerTest,
    parse_schedules,
    parse_spec,
    read_schedules,
    read_spec,
)
from penstock.topology.build import build

ROOT = Path(__file__).parents[2]
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@dataclass
class Report:
    """The report of a day."""

    date: str = ""
    name: str = ""


REPORT = JobKind("report.daily", Report)


class Reports:
    """Notes when each report began (UTC) and what it was for; the first so many attempts of each fail."""

    def __init__(self, start: datetime, fail_attempts: int = 0) -> None:
        self.clock = ManualClock(start)
        self.begun: list[tuple[str, str]] = []
        self.handlers = Handlers()
        self._fail_attempts = fail_attempts
        policy = RetryPolicy(first=10 * MINUTE, jitter=0)
        self.handlers.on(REPORT, retry=policy, once="lease")(self._run)

    async def _run(self, job: Job[Report]) -> None:
        self.begun.append((f"{self.clock.now():%m-%d %H:%M:%S}", job.args.date or job.args.name))
        if job.attempt <= self._fail_attempts:
            raise OSError("the disk is away")

    def test(self, schedules: str | Sequence[Schedule]) -> WorkerTest:
        entries = parse_schedules(schedules) if isinstance(schedules, str) else schedules
        return WorkerTest(self.handlers, clock=self.clock, schedules=entries)


def entry(when: str, more: str = "") -> str:
    """A schedules file with one entry, in Berlin."""
    return (
        "zone: Europe/Berlin\nschedules:\n"
        f'  report: {{{when}, kind: report.daily, args: {{date: "{{{{ fire_date }}}}"}}{more}}}'
    )


async def test_a_tick_comes_at_its_instant_and_not_before() -> None:
    reports = Reports(datetime(2026, 1, 1, 5, 59, 59, tzinfo=UTC))
    async with reports.test(entry('cron: "0 7 * * *"')) as t:
        await t.advance(timedelta(milliseconds=999))
        assert not t.ticks
        await t.advance(timedelta(milliseconds=1))
        assert reports.begun == [("01-01 06:00:00", "2026-01-01")]
        await t.advance(2 * DAY)
        assert [tick.id for tick in t.ticks] == [f"schedule:report:2026-01-0{day}T06:00:00Z" for day in (1, 2, 3)]
        assert len(t.done) == 3


async def test_the_retries_of_a_tick_come_by_the_same_clock() -> None:
    reports = Reports(datetime(2026, 1, 1, tzinfo=UTC), fail_attempts=1)
    async with reports.test(entry('cron: "0 7 * * *"')) as t:
        await t.advance(DAY)
        assert reports.begun == [("01-01 06:00:00", "2026-01-01"), ("01-01 06:10:00", "2026-01-01")]
        assert (len(t.retried), len(t.done)) == (1, 1)


async def test_a_night_that_has_no_half_past_two_and_one_that_has_two() -> None:
    spring, autumn = (Reports(datetime(2026, month, day, 12, tzinfo=UTC)) for month, day in ((3, 28), (10, 24)))
    for reports in (spring, autumn):
        async with reports.test(entry('cron: "30 2 * * *"')) as t:
            await t.advance(DAY)
    assert spring.begun == [("03-29 01:00:00", "2026-03-29")]
    assert autumn.begun == [("10-25 00:30:00", "2026-10-25")]


async def test_jitter_is_a_delay_and_schedules_of_the_same_instant_all_come() -> None:
    reports = Reports(datetime(2026, 1, 1, tzinfo=UTC))
    late = "every: 1h, jitter: 5m, kind: report.daily, args: {name: '{{ name }}'}"
    prompt = "every: 1h, kind: report.daily, args: {name: '{{ name }}'}"
    async with reports.test(f"schedules: {{late: {{{late}}}, prompt: {{{prompt}}}}}") as t:
        await t.advance(HOUR)
        assert [name for _, name in reports.begun] == ["prompt"]
        assert len(t.delayed) == 1
        await t.advance(5 * MINUTE)
        assert [name for _, name in reports.begun] == ["prompt", "late"]


async def test_a_tick_that_must_not_overlap_is_skipped_while_the_one_before_it_waits_for_its_retry() -> None:
    reports = Reports(datetime(2026, 1, 1, tzinfo=UTC), fail_attempts=1)
    async with reports.test(entry("every: 6m", ", overlap: skip")) as t:
        await t.advance(17 * MINUTE)
        assert [event.id[-9:] for event in t.skipped] == ["00:12:00Z"]
        assert len(t.done) == 1


async def test_what_is_due_as_the_test_begins_is_not_published() -> None:
    reports = Reports(datetime(2026, 1, 1, tzinfo=UTC))
    async with reports.test(entry("every: 1h")) as t:
        await t.settled()
        await t.advance(timedelta())
        assert not t.ticks


async def test_a_schedule_of_a_kind_that_no_queue_takes_fails_the_test_by_name() -> None:
    reports = Reports(datetime(2026, 1, 1, tzinfo=UTC))
    async with reports.test("schedules: {typo: {every: 1h, kind: reprot.daily}}") as t:
        with pytest.raises(PublishError, match=r"schedule typo: the tick of 2026-01-01T01:00:00Z .*'reprot.daily'"):
            await t.advance(HOUR)


async def test_the_ticks_of_one_test_reach_the_workers_of_others_and_end_with_it() -> None:
    here, there = Reports(datetime(2026, 1, 1, tzinfo=UTC)), Reports(datetime(2026, 1, 1, tzinfo=UTC))
    spec = parse_spec("queues: {here: [report.here], there: [report.*]}")
    broker = MemoryBroker(build(spec), here.clock)
    schedules = parse_schedules(entry("every: 1h"))
    there.clock = here.clock
    async with WorkerTest(there.handlers, queue="there", clock=here.clock, broker=broker) as other:
        async with WorkerTest(here.handlers, queue="here", clock=here.clock, broker=broker, schedules=schedules) as t:
            await t.advance(3 * HOUR)
        await other.advance(3 * HOUR)
        assert (len(t.finished), len(other.done)) == (0, 3)


async def test_the_schedules_that_are_deployed_with_the_topology_that_is_deployed() -> None:
    digest = JobKind("digest.daily", dict)
    handlers = Handlers()
    ran: list[str] = []

    @handlers.on(digest, once="lease")
    async def fan_out(job: Job[dict[str, str]]) -> None:
        ran.append(job.args["date"])

    schedules = read_schedules(ROOT / "services/scheduler/schedules.yaml")
    spec = read_spec(ROOT / "rabbitmq/topology.yaml")
    async with WorkerTest(handlers, queue="email", spec=spec, schedules=schedules) as t:
        await t.advance(2 * DAY)
        assert ran == ["2026-01-01", "2026-01-02"]
        assert {event.kind for event in t.events if isinstance(event, JobFinished)} == {"digest.daily"}
        assert len(t.ticks) == 4 + 2 * 24 * 4
