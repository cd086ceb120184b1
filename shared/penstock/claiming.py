"""The claims of one worker: taken before handlers run, held while they do, ended together with their effects."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar  # jobs of every argument type pass through here

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from penstock.batching import Batcher
from penstock.claim_outcomes import AWAY, refusal, result_of, wait_of
from penstock.claims import Answer, Claim, Fenced, Mark, State, Verdict, hash_of, new_token
from penstock.errors import ConfigError, PenstockError, StoreUnavailable
from penstock.events import ConnectFailed, Events, StoreAnswered, StoreAsked, StoreLost, StoreOpened
from penstock.failpoints import reach
from penstock.job import Job
from penstock.lanes import Lanes
from penstock.outcome import Outcome, Snoozed
from penstock.overlaps import tick_of
from penstock.own_effects import OwnEffects
from penstock.storing import EffectStore, OwnEffectStore, Store

T = TypeVar("T")

LEASE = timedelta(seconds=30)
RETENTION = timedelta(days=30)
DEAD_RETENTION = timedelta(days=14)

#: Seconds between two looks whether a store that is away answers, at most, and between two rounds of forgetting.
_LOOK_EVERY = 2.0
_EXPIRE_EVERY = 60.0
_EXPIRE_AT_ONCE = 1000
#: Seconds between two batches of forgetting: claims come first.
_EXPIRE_PAUSE = 0.05

_log = logging.getLogger("penstock.claiming")


@dataclass(frozen=True, slots=True)
class StoreTerms:
    """How a worker uses its store. *lease*: how long a claim holds without a sign of life; it is renewed while the
    handler runs. *retention*: how long a job is remembered. *dead*: how long dead letters may be replayed."""

    lease: timedelta = LEASE
    retention: timedelta = RETENTION
    dead: timedelta = DEAD_RETENTION


class Claiming:
    """The claims of *consumer* (a queue) on *store*. One event loop; safe to share by its tasks.

    When the store turns out to be away, ``away`` is set (and ``here`` is not) until it answers again.
    """

    def __init__(self, store: Store, consumer: str, terms: StoreTerms, events: Events) -> None:
        self.away, self.here = asyncio.Event(), asyncio.Event()
        self.here.set()
        self._watching: asyncio.Task[None] | None = None
        self._store = store
        # Asked here once: asked for each job, a protocol's isinstance takes a tenth of what the job costs.
        self._effect_store = store if isinstance(store, EffectStore) else None
        self._own = OwnEffects(store) if isinstance(store, OwnEffectStore) else None
        self._consumer = consumer
        self._terms = terms
        self._events = events
        self._lease = terms.lease // timedelta(milliseconds=1)
        self._held: dict[tuple[str, int], Claim] = {}
        self._since: dict[int, float] = {}  # token → loop time its lease began
        self._claims: Batcher[Claim, Answer] = Batcher(lambda claims: self._timed("claim", store.claim(claims)))
        self._marks: Batcher[Mark, bool] = Batcher(lambda marks: self._timed("mark", store.mark(marks)))
        self._lanes = Lanes(lambda entry: self._asked(self._timed("enter", store.enter(entry))), terms.lease)

    @contextlib.asynccontextmanager
    async def opened(self, connect_timeout: timedelta) -> AsyncIterator[None]:
        """Keep the store open, leases renewed and old records forgotten during the block.

        Raises ``StoreUnavailable`` when it is not reached within *connect_timeout*, ``ConfigError`` at once.
        """
        await persistently(self._store.open, self._store.shown, self._events, connect_timeout)
        self._events.emit(StoreOpened(self._store.shown))
        chores = [asyncio.create_task(self._renew_for_ever()), asyncio.create_task(self._forget_for_ever())]
        try:
            yield
        finally:
            chores += [self._watching] if self._watching is not None else []
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)
            await self._store.close()

    async def claim(self, job: Job[Any], body: bytes, *, own: bool = False) -> Outcome | Claim:
        """The claim to run *job* by, or what becomes of its delivery without a run. Never raises.

        *own*: the job's effect runs in ``effect``, of which its claim may be a part.
        *job* has passed ``overlaps.check``, should it be a schedule's tick.
        """
        if self.away.is_set():
            return Snoozed(AWAY, f"{self._store.shown} is away")
        args_hash = hash_of(body) if job.copy == 0 else None
        claim = Claim(self._consumer, job.id, job.copy, new_token(), self._lease, args_hash)
        tick = tick_of(job.headers)
        reach("before-claim")
        try:
            answer = await self._answer(claim, own=own and tick is None)
            now = time.time_ns() // 1_000_000
            if answer.verdict is not Verdict.FRESH:
                return refusal(answer, job, now)
            if tick is not None:
                reach("before-enter")
                refused = await self._lanes.enter(claim, tick, wait_of(job, now))
                if refused is not None:
                    return refused
        except StoreUnavailable as error:
            return Snoozed(AWAY, str(error))
        self.hold(claim)
        reach("claimed")
        return claim

    async def _answer(self, claim: Claim, *, own: bool) -> Answer:
        if own and self._own is not None:
            return await self._asked(self._timed("claim", self._own.begin(claim)))
        return await self._asked(self._claims.ask(claim.key, claim))

    def hold(self, claim: Claim) -> None:
        """Renew *claim* from now on until it is let go, and let effects end by it."""
        self._held[claim.job_id, claim.copy] = claim
        self._since[claim.token] = time.monotonic()

    async def stay(self, claim: Claim, away: timedelta) -> None:
        """The run of *claim*, which is still held, did not end its job, which comes back after *away*: if it is a tick,
        others of its schedule go on waiting for it. Untold, it has a few leases to come back. Never raises."""
        if not self.away.is_set():
            with contextlib.suppress(StoreUnavailable):
                await self._lanes.stay(claim, away)

    async def keep(self, claim: Claim, job: Job[Any]) -> Outcome | None:
        """See to it that there is a record of *claim*, for its *job* goes on as a copy or a letter, and that is to be
        marked: None when there is, or the store is away. A claim that was a part of its effect was rolled back with
        it, and is made anew; when another run got between the two, this is what becomes of the delivery. Never raises.
        """
        if self._own is None or claim not in self._own or self.away.is_set():
            return None
        await self._own.leave(claim)
        try:
            answer = await self._asked(self._claims.ask(claim.key, claim))
        except StoreUnavailable:
            return None
        return None if answer.verdict is Verdict.FRESH else refusal(answer, job, time.time_ns() // 1_000_000)

    def let_go(self, claim: Claim) -> None:
        """*claim* needs no further renewal. Idempotent."""
        self._lanes.leave(claim)
        self._since.pop(claim.token, None)
        identity = claim.job_id, claim.copy
        if self._held.get(identity) is claim:
            del self._held[identity]

    async def abandon(self, claim: Claim) -> None:
        """Roll back the effect that *claim* is a part of, if it was not entered. Idempotent. Never raises."""
        if self._own is not None:
            await self._own.leave(claim)

    async def effect(self, function: Callable[..., Awaitable[object]], job: Job[Any]) -> object:
        """Run ``function(job, transaction)``; its writes and the mark are committed together.

        Raises ``Fenced`` when another run took over, ``StoreUnavailable``, and what *function* raises: in each case
        nothing is committed, but when the store goes away during the commit that is unknown.
        """
        claim = self._held[job.id, job.copy]
        own = self._own
        opened = self._effects.effect() if own is None or claim not in own else await own.enter(claim)
        async with opened as effect:
            result = await function(job, effect.transaction)
            reach("handled")
            kept = result_of(result)
            reach("before-commit")
            if not await self._timed("commit", effect.complete(claim, kept)):
                raise Fenced()
        reach("committed")
        return result

    def effect_in_thread(self, function: Callable[..., object], job: Job[Any]) -> object:
        """As ``effect``, for the calling thread."""
        claim = self._held[job.id, job.copy]
        with self._effects.blocking_effect() as effect:
            result = function(job, effect.transaction)
            reach("handled")
            kept = result_of(result)
            reach("before-commit")
            with self._watched("commit"):
                held = effect.complete(claim, kept)
            if not held:
                raise Fenced()
        reach("committed")
        return result

    async def complete(self, claim: Claim, result: object) -> None:
        """Mark the job done, for effects elsewhere. The effect has happened: the store is asked for as long as the
        lease may hold, and after that left behind, and the lease with it. Never raises."""
        reach("before-mark")
        until = time.monotonic() + self._terms.lease.total_seconds()
        mark = Mark(claim, State.DONE, result_of(result))
        while not await self.mark(mark) and (left := until - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self.here.wait()
        reach("committed")

    async def mark(self, mark: Mark) -> bool:
        """Tell the store how a run ended; False when the store is away. Never raises.

        Untold, the lease ends by itself, and the copy fence still knows a higher copy from a lower one.
        """
        if self.away.is_set():
            return False
        try:
            await self._asked(self._marks.ask(mark.claim.key, mark))
        except StoreUnavailable:
            return False
        return True

    async def release(self, claim: Claim) -> None:
        """The run was broken off: the job may be claimed again at once. Never raises."""
        if self._own is not None and claim in self._own:
            return  # it is rolled back
        with contextlib.suppress(StoreUnavailable):
            await self._asked(self._timed("release", self._store.release([claim])))

    def lost(self, error: PenstockError) -> None:
        """The store turned out to be away."""
        if not self.away.is_set():
            self.away.set()
            self.here.clear()
            self._events.emit(StoreLost(self._store.shown, str(error)))
            self._watching = asyncio.create_task(self._until_it_answers())

    async def _until_it_answers(self) -> None:
        since, wait = time.monotonic(), 0.1
        while not await self._answers():
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LOOK_EVERY)
        self.away.clear()
        self.here.set()
        self._events.emit(StoreAnswered(self._store.shown, time.monotonic() - since))

    @property
    def _effects(self) -> EffectStore:
        assert self._effect_store is not None, "Worker.check lets no effect handler near another store"
        return self._effect_store

    async def _answers(self) -> bool:
        try:
            await self._store.ping()
        except (StoreUnavailable, ConfigError):
            return False
        return True

    async def _timed(self, operation: str, question: Awaitable[T]) -> T:
        with self._watched(operation):
            return await question

    @contextlib.contextmanager
    def _watched(self, operation: str) -> Iterator[None]:
        """Tell how long the store took for *operation*; a foreign error is the handler's, not the store's."""
        started = time.perf_counter()
        failed = False
        try:
            yield
        except StoreUnavailable:
            failed = True
            raise
        finally:
            if self._events.watched:
                self._events.emit(StoreAsked(operation, time.perf_counter() - started, failed))

    async def _asked(self, question: Awaitable[T]) -> T:
        """The answer; a schema that went away under a running worker is a store that is away."""
        try:
            return await question
        except (StoreUnavailable, ConfigError) as error:
            self.lost(error)
            raise StoreUnavailable(str(error)) from error

    async def _renew_for_ever(self) -> None:
        every = self._terms.lease.total_seconds() / 3
        while True:
            await asyncio.sleep(every)
            due = time.monotonic() - every / 2
            old = [claim for claim in self._held.values() if self._since.get(claim.token, due) < due]
            if old:
                with contextlib.suppress(StoreUnavailable):
                    await self._renew(old)

    async def _renew(self, claims: list[Claim]) -> None:
        now = time.monotonic()
        held = await self._asked(self._timed("renew", self._renewed(claims)))
        for claim, holds in zip(claims, held, strict=True):
            if holds:
                self._since[claim.token] = now
            elif self._held.get((claim.job_id, claim.copy)) is claim:
                _log.warning("job %s was taken over by another run", claim.job_id)
                self._since.pop(claim.token, None)

    async def _renewed(self, claims: Sequence[Claim]) -> list[bool]:
        own = self._own
        if own is None:
            return await self._store.renew(claims)
        others = [claim for claim in claims if claim not in own]
        held = dict(zip(others, await self._store.renew(others), strict=True)) if others else {}
        await asyncio.gather(*(own.renew(claim) for claim in claims if claim not in held))
        return [held.get(claim, True) for claim in claims]

    async def _forget_for_ever(self) -> None:
        keep = self._terms.retention // timedelta(milliseconds=1)
        while True:
            await asyncio.sleep(_EXPIRE_EVERY)
            with contextlib.suppress(StoreUnavailable):
                await self._forget(time.time_ns() // 1_000_000 - keep)

    async def _forget(self, before: int) -> None:
        """One small batch after another, with pauses in which claims come first."""
        forgotten = _EXPIRE_AT_ONCE
        while forgotten == _EXPIRE_AT_ONCE:
            forgotten = await self._asked(self._timed("expire", self._store.expire(before, _EXPIRE_AT_ONCE)))
            await asyncio.sleep(_EXPIRE_PAUSE)


async def persistently(
    step: Callable[[], Awaitable[None]], name: str, events: Events, connect_timeout: timedelta
) -> None:
    """Take *step* until it does not raise ``StoreUnavailable``, for *connect_timeout* at most; then that is raised.

    Each failure is told to *events* under *name*.
    """

    def report(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        events.emit(ConnectFailed(name, str(error), state.attempt_number, state.upcoming_sleep))

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(StoreUnavailable),
        wait=wait_random_exponential(multiplier=0.2, max=5.0),
        stop=stop_after_delay(connect_timeout.total_seconds()),
        before_sleep=report,
        reraise=True,
    )
    await retrying(step)
