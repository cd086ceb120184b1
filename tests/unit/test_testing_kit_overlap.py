"""``WorkerTest`` judges the ticks of schedules as a worker does, on the clock of the test."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from penstock import Handlers, Job, JobKind, RetryPolicy, Snooze
from penstock.message import Message
from penstock.testing import WorkerTest

MINUTE = timedelta(minutes=1)


@dataclass
class Digest:
    """What a tick does: it fails, or snoozes, on its first run."""

    trouble: str = ""


DIGEST = JobKind("mail.digest", Digest)


class Ticks:
    """Ticks that came to run."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.handlers = Handlers()
        policy = RetryPolicy(max_attempts=2, first=10 * MINUTE, jitter=0)
        self.handlers.on(DIGEST, once="lease", retry=policy)(self._run)

    async def _run(self, job: Job[Digest]) -> None:
        self.begun.append(job.id)
        if job.copy == 0 and job.args.trouble == "fails":
            raise OSError("the mail server is away")
        if job.copy == 0 and job.args.trouble == "snoozes":
            raise Snooze(after=30 * MINUTE)


async def tick(t: WorkerTest, job: str, overlap: str = "skip", trouble: str = "") -> None:
    """Publish a tick as the scheduler does."""
    headers: dict[str, Any] = {"penstock-schedule": "digest", "penstock-overlap": overlap}
    body = b'{"trouble": "%b"}' % trouble.encode()
    await t.send(Message(body, message_id=job, type=DIGEST.name, headers=headers), DIGEST.name)


def outcomes(t: WorkerTest) -> list[tuple[str, str]]:
    """Every tick and what became of it, in order."""
    return [(event.id, type(event.outcome).__name__) for event in t.finished]


async def test_a_retry_that_is_to_come_in_ten_minutes_has_not_ended() -> None:
    ticks = Ticks()
    async with WorkerTest(ticks.handlers) as t:
        await tick(t, "1", trouble="fails")
        await t.settled()
        await t.advance(9 * MINUTE)
        await tick(t, "2")
        await t.settled()
        await t.advance(2 * MINUTE)
        await tick(t, "3")
        await t.settled()
    assert outcomes(t) == [("1", "Retried"), ("2", "Skipped"), ("1", "Done"), ("3", "Done")]
    assert [event.id for event in t.skipped] == ["2"]


async def test_a_tick_that_snoozed_for_half_an_hour_has_not_ended() -> None:
    ticks = Ticks()
    async with WorkerTest(ticks.handlers) as t:
        await tick(t, "1", trouble="snoozes")
        await t.settled()
        await t.advance(29 * MINUTE)
        await tick(t, "2")
        await t.settled()
        await t.advance(2 * MINUTE)
        await tick(t, "3")
        await t.settled()
    assert ticks.begun == ["1", "1", "3"]


async def test_a_tick_that_waits_for_a_retry_runs_after_it() -> None:
    ticks = Ticks()
    async with WorkerTest(ticks.handlers) as t:
        await tick(t, "1", trouble="fails")
        await t.settled()
        await tick(t, "2", "buffer-one")
        await t.settled()
        await tick(t, "3", "buffer-one")
        await t.settled()
        await t.advance(9 * MINUTE)
        assert ticks.begun == ["1"]
        await t.advance(2 * MINUTE)
    assert ticks.begun == ["1", "1", "2"]
    assert [event.id for event in t.skipped] == ["3"]
    assert {event.attempt for event in t.done if event.id == "2"} == {1}
