"""Jobs at a worker: what became of them, what they took, what runs now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any  # events of any type

from penstock.events import JobNotDone, JobsBegun, JobsDone, WorkerStarted
from penstock.metrics.group import RUNS, WAITS, Handle, Words
from penstock.metrics.meters import counter, gauge, histogram
from penstock.outcome import WORDS, Dead, DeadReason, Done, Retried

_ATTEMPTS = (1, 2, 3, 5, 8, 13, 21)

_WORKERS_REASONS = tuple(str(reason) for reason in DeadReason if reason is not DeadReason.DELIVERY_LIMIT)


class _Tally:
    """The series of one kind in one queue, found once."""

    __slots__ = ("age", "attempts", "ended_on", "failed", "labels", "outcomes", "put_off", "run", "running", "wait")

    def __init__(self, jobs: Jobs, kind: str, queue: str) -> None:
        self.labels = kind, queue
        self.outcomes = {outcome: jobs.outcomes.child(kind, queue, word) for outcome, word in WORDS.items()}
        self.attempts, self.failed, self.put_off = (
            jobs.attempts.child(kind, queue, result) for result in ("done", "failed", "put_off")
        )
        self.running = jobs.running.child(kind, queue)
        self.run = jobs.run.child(kind, queue)
        self.wait = jobs.wait.child(kind, queue)
        self.age = jobs.age.child(kind, queue)
        self.ended_on = jobs.ended_on.child(kind, queue)


class Jobs:
    """Jobs at a worker."""

    def __init__(self, words: Words) -> None:
        by = ("kind", "queue")
        self.outcomes = counter("penstock_jobs_total", "Deliveries judged, by what became of them.", *by, "outcome")
        self.attempts = counter("penstock_attempts_total", "Runs of handlers that ended, by how.", *by, "result")
        self._failures = counter(
            "penstock_attempt_failures_total", "Runs of handlers that failed, by the error's class.", *by, "error"
        )
        self.running = gauge("penstock_in_progress", "Handlers that run now.", *by)
        self.run = histogram("penstock_run_seconds", "What runs of handlers took.", RUNS, *by)
        self.wait = histogram("penstock_wait_seconds", "From publish to the first run, undelayed jobs.", WAITS, *by)
        self.age = histogram("penstock_end_to_end_seconds", "From first publish to done or dead.", WAITS, *by)
        self.ended_on = histogram("penstock_job_attempts", "The attempt that was the last of a job.", _ATTEMPTS, *by)
        self._last_done = gauge("penstock_last_done_timestamp_seconds", "When a job was done last, since 1970.", *by)
        self._dead = counter("penstock_dead_letters_total", "Dead letters written, by reason.", "queue", "reason")
        self._last_tick = gauge(
            "penstock_schedule_last_done_timestamp_seconds", "When a tick was done last, since 1970.", "schedule"
        )
        self._slots = gauge("penstock_slots", "Jobs this process runs at once, at most.", "queue")
        self.families = (
            *(self.outcomes, self.attempts, self._failures, self.running, self.run, self.wait, self.age),
            *(self.ended_on, self._last_done, self._dead, self._last_tick, self._slots),
        )
        self.handles: Mapping[type[Any], Handle] = {
            JobsBegun: self._running,
            JobsDone: self._done,
            JobNotDone: self._not_done,
            WorkerStarted: self._begun,
        }
        self._words = words
        self._tallies: dict[tuple[str, str], _Tally] = {}

    def _begun(self, event: WorkerStarted) -> None:
        """Every series that can be foreseen begins at 0: an increase from nothing is none to Prometheus."""
        self._words.kinds.know(event.kinds)
        self._words.queues.know([event.queue])
        self._slots.child(event.queue).value = event.slots
        for kind in event.kinds:
            self._tally(kind, event.queue)
        for reason in _WORKERS_REASONS:
            self._dead.child(event.queue, reason)

    def _running(self, event: JobsBegun) -> None:
        tally = self._tally(event.kind, event.queue)
        tally.running.value = event.running
        tally.wait.observe(*event.waits)

    def _done(self, event: JobsDone) -> None:
        tally = self._tally(event.kind, event.queue)
        count = len(event.runs)
        tally.outcomes[Done].value += count
        tally.attempts.value += count
        tally.run.observe(*event.runs)
        tally.age.observe(*event.ages)
        tally.ended_on.observe(*event.attempts)
        now = time.time()
        self._last_done.child(*tally.labels).value = now
        for schedule in event.schedules:
            self._last_tick.child(self._words.schedules.word(schedule)).value = now

    def _not_done(self, event: JobNotDone) -> None:
        tally = self._tally(event.kind, event.queue)
        outcome = event.outcome
        tally.outcomes[type(outcome)].value += 1
        if isinstance(outcome, Dead):
            self._died(tally, event, outcome)
        if not event.run:
            return
        tally.run.observe(event.run)
        if isinstance(outcome, Retried | Dead):
            tally.failed.value += 1
            words = self._words
            kind, queue = words.kinds.word(event.kind), words.queues.word(event.queue)
            self._failures.child(kind, queue, words.errors.word(outcome.failure.type)).value += 1
        else:
            tally.put_off.value += 1

    def _died(self, tally: _Tally, event: JobNotDone, outcome: Dead) -> None:
        self._dead.child(self._words.queues.word(event.queue), str(outcome.reason)).value += 1
        tally.ended_on.observe(event.attempt)
        if event.age is not None:
            tally.age.observe(event.age)

    def _tally(self, kind: str, queue: str) -> _Tally:
        words = self._words
        labels = words.kinds.word(kind), words.queues.word(queue)
        tally = self._tallies.get(labels)
        if tally is None:
            tally = self._tallies[labels] = _Tally(self, *labels)
        return tally
