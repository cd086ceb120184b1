"""A run of a job in named steps: open, expired?, resolve, attempt, judge. Values in, an outcome out."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from typing import Any, Protocol  # handlers of many argument types pass through here

from penstock import headers as h
from penstock import overlaps, tracing
from penstock.claim_outcomes import failed
from penstock.claiming import Claiming
from penstock.claims import Claim, Fenced
from penstock.clock import Clock, new_job_id
from penstock.copies import kind_of, published_ms
from penstock.errors import DecodeError, JobCrashed, MessageError, StoreUnavailable, TooLarge, UnknownKind
from penstock.events import Events, JobFinished, JobNotDone, JobsBegun, JobsDone, JobStarted
from penstock.handlers import Handler, Handlers, Isolation, Once
from penstock.job import Job
from penstock.message import Delivery, Message
from penstock.outcome import (
    Dead,
    DeadReason,
    Done,
    Duplicate,
    Expired,
    Failure,
    Outcome,
    Released,
    Retried,
    Skipped,
    Snoozed,
    judge,
)
from penstock.running import JOB
from penstock.tallies import Tallies
from penstock.topology.matching import matches
from penstock.topology.names import JOBS

_DONE = Done()

#: From this many earlier deliveries on, a message is suspected of killing its worker and runs alone in a child.
SUSPECT_FROM = 3


class Children(Protocol):
    """Runs jobs in child processes."""

    async def run(self, delivery: Delivery, handler: Handler, *, alone: bool, claim: Claim | None = None) -> Outcome:
        """Run *delivery*, which *claim* covers, in a child, *alone* in a fresh one. Raises ``JobTimeout`` (killed at
        its deadline) and ``JobCrashed`` (the child died)."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker takes: bodies up to *max_body* bytes, kinds that match *binds* (None: every kind), and unknown
    kinds for *unknown_kind_grace* (a rolling deploy) before they are dead."""

    max_body: int
    binds: Sequence[str] | None
    unknown_kind_grace: timedelta


class Execution:
    """Runs deliveries of one queue. Holds no state between runs; safe to share by tasks of one loop."""

    def __init__(
        self,
        handlers: Handlers,
        calls: Mapping[str, Callable[[Job[Any]], Awaitable[object]]],
        limits: Limits,
        clock: Clock,
        events: Events,
        children: Children | None = None,
        claiming: Claiming | None = None,
        *,
        traced: bool = True,
    ) -> None:
        self._handlers = handlers
        self._calls = calls
        self._limits = limits
        self._clock = clock
        self._events = events
        self._children = children
        self._claiming = claiming
        self._traced = traced
        self._tallies = Tallies(events)
        self._bound = lru_cache(maxsize=1024)(self._is_bound)

    def prepare(self, delivery: Delivery) -> tuple[Job[Any], Handler] | Outcome:
        """Open and resolve *delivery*: the job and its handler, or what becomes of it without a run. Never raises."""
        message = delivery.message
        identify(delivery)
        now = self._clock.now_ms()
        try:
            kind = kind_of(delivery)
            waiting = self._not_now(message, now)
            if waiting is not None:
                return waiting
            self._check(message, kind)
            handler = self._handlers.for_kind(kind)
            if h.OVERLAP in message.headers:
                overlaps.check(message.headers, kind, remembered=handler.once is not None)
            return _job(delivery, kind, handler.kind.decode(message.body)), handler
        except UnknownKind as error:
            return self._unknown(message, error, now)
        except UnboundKind as error:
            return Dead(DeadReason.UNBOUND_KIND, Failure.of(error))
        except TooLarge as error:
            return Dead(DeadReason.TOO_LARGE, Failure.of(error))
        except overlaps.OverlapRefused as error:
            return Dead(DeadReason.OVERLAP, Failure.of(error))
        except MessageError as error:
            return Dead(DeadReason.of(error), Failure.of(error))
        except Exception as error:  # noqa: BLE001 - validators of a kind are foreign code and may raise anything
            return Dead(DeadReason.SCHEMA, Failure.of(error))

    async def run(self, delivery: Delivery, claim: Claim | None = None) -> Outcome:
        """Run the handler for *delivery* once and say what became of it. Never raises for a job's failure.

        *claim*: taken already, by the worker whose child this is.
        """
        prepared = self.prepare(delivery)
        if isinstance(prepared, tuple) and prepared[1].once is not None and claim is None:
            claimed = await self._claim(delivery, *prepared)
            if isinstance(claimed, Claim):
                claim = claimed
            else:
                prepared = claimed
                delivery.remembered = isinstance(claimed, Duplicate | Skipped)
        if not isinstance(prepared, tuple):
            self._tell(delivery, prepared)
            return prepared
        job, handler = prepared
        since = self._since(job.published)
        counted = self._begun(delivery, job, since)
        started = time.perf_counter()
        JOB.set(job)
        run = tracing.running(delivery, job.kind) if self._traced else None
        outcome = await self._attempt(delivery, job, handler, claim)
        if counted:
            self._tallies.ended(job.kind)
        if run is not None:
            tracing.ended(run, outcome)
        JOB.set(None)
        if claim is not None:
            outcome = await self._with_claim(outcome, claim, job)
            delivery.remembered = type(outcome) is Done
        self._ended(job, outcome, time.perf_counter() - started, since)
        return outcome

    def count(self) -> None:
        """Tell the subscribers who count what was not told yet."""
        self._tallies.tell()

    def _begun(self, delivery: Delivery, job: Job[Any], since: float | None) -> bool:
        """Tell that *job*, published *since* seconds ago, begins; whether it is counted among those that run."""
        events = self._events
        # What comes straight from its producer has waited in the queue alone.
        wait = since if delivery.exchange == JOBS else None
        if events.wants(JobStarted):
            events.emit(JobStarted(job.id, job.kind, job.queue, job.attempt, wait))
        counted = events.wants(JobsBegun)
        if counted:
            self._tallies.begun(job.kind, job.queue, wait if job.attempt == 1 else None)
        return counted

    def _ended(self, job: Job[Any], outcome: Outcome, run: float, since: float | None) -> None:
        events, headers = self._events, job.headers
        schedule = h.schedule_of(headers) if h.SCHEDULE in headers else None
        kind: type[JobFinished] = JobNotDone
        if type(outcome) is Done:
            kind = JobFinished
            if events.wants(JobsDone):
                self._tallies.done(job.kind, job.queue, job.attempt, run, since, schedule)
        if events.wants(kind):
            age = None if since is None else since + run
            events.emit(kind(job.id, job.kind, job.queue, job.attempt, outcome, run, age, schedule))

    def _tell(self, delivery: Delivery, outcome: Outcome) -> None:
        """Tell the subscribers what became of a *delivery* that was not run."""
        message = delivery.message
        attempt, kind = h.attempt_of(message.headers), kind_of(delivery)
        job_id = message.message_id or ""
        age = self._since(_published(message))
        run = tracing.running(delivery) if self._traced else None
        if run is not None:
            tracing.ended(run, outcome)
        self._events.emit(JobNotDone(job_id, kind, delivery.queue, attempt, outcome, 0.0, age))

    def judge(self, error: BaseException, job: Job[Any], handler: Handler) -> Outcome:
        """What becomes of *job* after *error*."""
        age = timedelta(milliseconds=max(0, self._clock.now_ms() - job.published) if job.published is not None else 0)
        return judge(error, job.attempt, handler.retry, age=age, roll=random.random())

    async def _claim(self, delivery: Delivery, job: Job[Any], handler: Handler) -> Outcome | Claim:
        """The claim to run *job* by; or its outcome, when it may not run now."""
        assert self._claiming is not None, "Worker.check lets no such handler run without a store"
        if delivery.anonymous:
            return Snoozed(timedelta(), "given an id", same_copy=True)
        try:
            own = handler.once is Once.EFFECT and handler.in_loop and not self._in_child(delivery, handler)
            return await self._claiming.claim(job, delivery.message.body, own=own)
        except asyncio.CancelledError:
            return Released()

    async def _with_claim(self, outcome: Outcome, claim: Claim, job: Job[Any]) -> Outcome:
        """*outcome* with what its settlement tells the store, or nothing, when all was told already."""
        assert self._claiming is not None
        if isinstance(outcome, Retried | Snoozed):
            await self._claiming.stay(claim, outcome.delay)
        match outcome:
            case Retried() | Dead() | Snoozed(same_copy=False):
                outcome = await self._claiming.keep(claim, job) or replace(outcome, claim=claim)
            case Released():
                await self._claiming.release(claim)
        self._claiming.let_go(claim)
        await self._claiming.abandon(claim)
        return outcome

    async def _attempt(self, delivery: Delivery, job: Job[Any], handler: Handler, claim: Claim | None) -> Outcome:
        suspect = delivery.deliveries >= SUSPECT_FROM
        try:
            if self._children is not None and self._in_child(delivery, handler):
                return await self._children.run(delivery, handler, alone=suspect, claim=claim)
            result = await self._calls[job.kind](job)
            if claim is not None and handler.once is Once.LEASE and self._claiming is not None:
                await self._claiming.complete(claim, result)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                return Released()
            return self.judge(error, job, handler)
        except (Fenced, StoreUnavailable) as error:
            if isinstance(error, StoreUnavailable) and self._claiming is not None:
                self._claiming.lost(error)
            return failed(error)
        except JobCrashed as error:
            return Dead(DeadReason.CRASHED, Failure.of(error)) if suspect else self.judge(error, job, handler)
        except BaseException as error:  # noqa: BLE001 - whatever ends a handler, SystemExit too, is not the worker's end
            return self.judge(error, job, handler)
        return _DONE if result is None else Done(result)

    def _in_child(self, delivery: Delivery, handler: Handler) -> bool:
        isolated = delivery.deliveries >= SUSPECT_FROM or handler.isolation is Isolation.PROCESS
        return isolated and self._children is not None

    def _not_now(self, message: Message, now: int) -> Outcome | None:
        if not message.headers:
            return None
        expires = h.ms_of(message.headers, h.EXPIRES)
        if expires is not None and expires <= now:
            return Expired()
        due = h.ms_of(message.headers, h.DUE)
        if due is not None and due > now:
            return Snoozed(timedelta(milliseconds=due - now), "not due yet")
        return None

    def _check(self, message: Message, kind: str) -> None:
        if len(message.body) > self._limits.max_body:
            raise TooLarge(f"the body has {len(message.body)} bytes, over the limit of {self._limits.max_body}")
        if message.content_encoding:
            raise DecodeError(f"content encoding {message.content_encoding[:50]!r} is not supported: send plain JSON")
        if not self._bound(kind):
            raise UnboundKind(
                f"kind {kind[:200]!r} matches no binding of this queue ({', '.join(self._limits.binds or ())})"
            )

    def _is_bound(self, kind: str) -> bool:
        binds = self._limits.binds
        return binds is None or any(matches(pattern, kind) for pattern in binds)

    def _unknown(self, message: Message, error: UnknownKind, now: int) -> Outcome:
        grace = self._limits.unknown_kind_grace
        age = timedelta(milliseconds=now - published_ms(message, now))
        if age >= grace:
            return Dead(DeadReason.UNKNOWN_KIND, Failure.of(error))
        # A quarter of the grace at a time: a worker that learns the kind meanwhile gets it soon.
        return Snoozed(min(max(grace / 4, timedelta(seconds=1)), timedelta(seconds=30)), str(error))

    def _since(self, instant: int | None) -> float | None:
        return None if instant is None else max(0, self._clock.now_ms() - instant) / 1000


def identify(delivery: Delivery) -> None:
    """Give *delivery* a job id when its producer sent none, and note that."""
    if delivery.message.message_id is None:
        delivery.message.message_id = new_job_id()
        delivery.anonymous = True


class UnboundKind(MessageError):
    """The message's ``type`` names a kind that its queue is not bound to."""


def _job(delivery: Delivery, kind: str, args: object) -> Job[Any]:
    message = delivery.message
    headers = message.headers
    return Job(
        message.message_id or "",
        kind,
        args,
        h.attempt_of(headers) if headers else 1,
        h.copy_of(headers) if headers else 0,
        delivery.queue,
        _published(message),
        message.correlation_id,
        message.app_id,
        delivery.redelivered,
        headers,
    )


def _published(message: Message) -> int | None:
    stamp = h.ms_of(message.headers, h.PUBLISHED)
    if stamp is None and message.timestamp is not None:
        return message.timestamp * 1000
    return stamp
