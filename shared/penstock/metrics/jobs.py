"""Jobs at a worker: what became of them, what they took, what runs now."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any  # events of any type

from penstock.events import JobFinished, JobStarted, WorkerStarted
from penstock.metrics.group import RUNS, WAITS, Handle, Words
from penstock.metrics.meters import FULL, Number, counter, gauge, histogram
from penstock.outcome import WORDS, Dead, DeadReason, Done, Outcome, Retried

_ATTEMPTS = (1, 2, 3, 5, 8, 13, 21)

_WORKERS_REASONS = tuple(str(reason) for reason in DeadReason if reason is not DeadReason.DELIVERY_LIMIT)


class _Tally:
    """The series of one kind in one queue, found once: a job costs a few additions."""

    __slots__ = (
        *("age", "ages", "attempts", "ended_on", "failed", "labels", "last_attempts", "last_done", "outcomes"),
        *("put_off", "run", "running", "runs", "wait", "waits"),
    )

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
        #: What most jobs add to, without a call.
        self.runs, self.waits, self.ages = self.run.fresh, self.wait.fresh, self.age.fresh
        self.last_attempts = self.ended_on.fresh
        #: Absent until there was one: 1970 would look like a very long silence.
        self.last_done: Number | None = None

    def fold(self) -> None:
        """Count what is fresh: a job's start and its end add one observation each, so none is far ahead of the runs."""
        for series in (self.run, self.wait, self.age, self.ended_on):
            series.fold()


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
            JobStarted: self._started,
            JobFinished: self._finished,
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

    def _started(self, event: JobStarted) -> None:
        tally = self._tallies.get((event.kind, event.queue)) or self._tally(event.kind, event.queue)
        tally.running.value += 1
        if event.wait is not None and event.attempt == 1:
            tally.waits.append(event.wait)

    def _finished(self, event: JobFinished) -> None:
        tally = self._tallies.get((event.kind, event.queue)) or self._tally(event.kind, event.queue)
        outcome = event.outcome
        tally.outcomes[type(outcome)].value += 1
        if event.run:
            tally.running.value -= 1
            tally.runs.append(event.run)
            if len(tally.runs) >= FULL:
                tally.fold()
            if type(outcome) is not Done:
                self._not_done(tally, event, outcome)
                return
            tally.attempts.value += 1
            last = tally.last_done
            if last is None:
                last = tally.last_done = self._last_done.child(*tally.labels)
            last.value = now = time.time()
            if event.schedule is not None:
                self._last_tick.child(self._words.schedules.word(event.schedule)).value = now
            tally.last_attempts.append(event.attempt)
            if event.age is not None:
                tally.ages.append(event.age)
        elif type(outcome) is Dead:
            self._died(tally, event, outcome)

    def _died(self, tally: _Tally, event: JobFinished, outcome: Dead) -> None:
        self._dead.child(self._words.queues.word(event.queue), str(outcome.reason)).value += 1
        tally.ended_on.observe(event.attempt)
        if event.age is not None:
            tally.age.observe(event.age)

    def _not_done(self, tally: _Tally, event: JobFinished, outcome: Outcome) -> None:
        if isinstance(outcome, Dead):
            self._died(tally, event, outcome)
        if isinstance(outcome, Retried | Dead):
            tally.failed.value += 1
            words = self._words
            kind, queue = words.kinds.word(event.kind), words.queues.word(event.queue)
            self._failures.child(kind, queue, words.errors.word(outcome.failure.type)).value += 1
        else:
            tally.put_off.value += 1

    def _tally(self, kind: str, queue: str) -> _Tally:
        words = self._words
        labels = words.kinds.word(kind), words.queues.word(queue)
        tally = self._tallies.get(labels)
        if tally is None:
            tally = self._tallies[labels] = _Tally(self, *labels)
        return tally
