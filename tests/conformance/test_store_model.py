"""Whatever is asked of a store, in whatever order, it answers as a dictionary and ``claims.decide`` would."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar  # what a coroutine awaits is its own affair
from uuid import uuid4

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from penstock.claims import Answer, Claim, Mark, Record, State, Verdict, decide, new_token
from penstock.overlaps import Admission, Entry, Lane, Standing
from penstock.overlaps import decide as decide_entry
from penstock.schedules.model import Overlap
from penstock.storing import OwnEffectStore, Store
from penstock.testing.clock import ManualClock
from tests.conformance.store_subjects import StoreSubject

T = TypeVar("T")
Key = tuple[str, str]

#: Few of each, so that they meet.
CONSUMERS = st.sampled_from(["credits", "mailer"])
JOBS = st.sampled_from(["a", "b", "c"])
COPIES = st.integers(0, 2)
LEASES = st.sampled_from([1, 1_000, 60_000])
HASHES = st.sampled_from([None, "hash of these", "hash of those"])
ENDS = st.sampled_from([State.DONE, State.MOVED, State.DEAD, State.SKIPPED])
RESULTS = st.sampled_from([None, b"1", b'{"sum":"\xc3\xa9"}'])
STEPS = st.sampled_from([1, 999, 1_000, 59_000, 60_000])

SCHEDULES = st.sampled_from(["digest", "cleanup"])
OVERLAPS = st.sampled_from([Overlap.SKIP, Overlap.BUFFER_ONE])
SPANS = st.sampled_from([0, 1_000, 60_000, 600_000])

WISHES = st.builds(Claim, CONSUMERS, JOBS, COPIES, st.builds(new_token), LEASES, HASHES)
BATCHES = st.lists(WISHES, min_size=1, max_size=4, unique_by=lambda claim: claim.key)


class Model:
    """What a store should remember."""

    def __init__(self) -> None:
        self.records: dict[Key, Record] = {}
        self.lanes: dict[Key, Lane] = {}

    def claim(self, claim: Claim, now: int) -> Answer:
        """See ``Store.claim``."""
        record = self.records.get(claim.key)
        verdict = decide(record, claim, now)
        if verdict is Verdict.FRESH:
            args_hash = claim.args_hash or (record.args_hash if record else None)
            until = now + claim.lease
            taken = Record(*claim.key, claim.copy, State.RUNNING, claim.token, until, args_hash, None, now)
            self.records[claim.key] = taken
            return Answer(verdict)
        assert record is not None
        until = record.until if verdict is Verdict.RUNNING else 0
        return Answer(verdict, until, record.result if verdict is Verdict.DONE else None)

    def mark(self, mark: Mark) -> bool:
        """See ``Store.mark``."""
        record = self.records.get(mark.claim.key)
        if record is None or record.token != mark.claim.token or record.state not in (State.RUNNING, mark.state):
            return False
        self.records[mark.claim.key] = replace(record, state=mark.state, result=mark.result)
        return True

    def lease(self, claim: Claim, until: int) -> bool:
        """See ``Store.renew`` and ``Store.release``."""
        record = self.records.get(claim.key)
        if record is None or record.token != claim.token or record.state is not State.RUNNING:
            return False
        self.records[claim.key] = replace(record, until=until)
        return True

    def enter(self, entry: Entry, now: int) -> Admission:
        """See ``Store.enter``."""
        claim, place = entry.claim, (entry.claim.consumer, entry.schedule)
        records = {job: record for (consumer, job), record in self.records.items() if consumer == claim.consumer}
        standings = {job: Standing(record.state, record.token, record.until) for job, record in records.items()}
        decision = decide_entry(self.lanes.get(place, Lane()), standings, entry, now)
        self.lanes[place] = decision.lane
        if decision.fenced is not None:
            self._change((claim.consumer, decision.fenced), token=claim.token, until=0)
        if decision.admission is Admission.WAIT:
            self._change(claim.key, until=0)
        if decision.admission is Admission.SKIP:
            self._change(claim.key, state=State.SKIPPED)
        return decision.admission

    def _change(self, key: Key, **changes: Any) -> None:
        self.records[key] = replace(self.records[key], **changes)

    def expire(self, before: int, now: int) -> int:
        """See ``Store.expire``."""
        old = [
            key
            for key, record in self.records.items()
            if record.claimed < before and not (record.state is State.RUNNING and record.until > now)
        ]
        return self.drop(old)

    def forget(self, job_id: str) -> int:
        """See ``Store.forget``."""
        return self.drop([key for key in self.records if key[1] == job_id])

    def drop(self, keys: Sequence[Key]) -> int:
        """Forget the records of *keys*."""
        for key in keys:
            del self.records[key]
        return len(keys)


class StoreMachine(RuleBasedStateMachine):
    """A store beside its model; every rule asks both the same."""

    made = Bundle("claims that were made")

    def __init__(self, runner: asyncio.Runner, store: Store, clock: ManualClock) -> None:
        super().__init__()
        self._runner = runner
        self._store = store
        self._clock = clock
        self._model = Model()
        self._suffix = uuid4()  # not of ``random``, which Hypothesis begins anew: lanes of other examples are there

    @initialize()
    def forget_everything(self) -> None:
        """Begin with a store that remembers nothing, and all leases ended."""
        self._run(self._clock.advance(timedelta(hours=1)))
        self._run(self._store.expire(self._now, 1_000))
        self._compare()

    @rule(target=made, claims=BATCHES)
    def claim(self, claims: list[Claim]) -> Any:
        """Claim a batch of jobs; the bundle has what was claimed, answered so or so."""
        self._claim(claims)
        return multiple(*claims)

    @precondition(lambda machine: isinstance(machine._store, OwnEffectStore))
    @rule(target=made, claim=WISHES, result=RESULTS, commits=st.booleans())
    def begin(self, claim: Claim, result: bytes | None, commits: bool) -> Any:
        """Claim within an effect, which is committed, or rolled back as if it had never been."""
        before = dict(self._model.records)
        expected = self._model.claim(claim, self._now)
        assert _told(self._run(self._begun(claim, result, commits=commits))) == expected
        if expected.verdict is Verdict.FRESH:
            assert self._model.mark(Mark(claim, State.DONE, result))
            self._model.records = self._model.records if commits else before
        self._compare()
        return multiple(claim) if commits else multiple()

    async def _begun(self, claim: Claim, result: bytes | None, *, commits: bool) -> Answer:
        assert isinstance(self._store, OwnEffectStore)
        effect = await self._store.begin(claim)
        if isinstance(effect, Answer):
            return effect
        if commits:
            async with effect:
                assert await effect.complete(claim, result)
        else:
            await effect.abandon()
        return Answer(Verdict.FRESH)

    @rule(claim=made)
    def claim_again(self, claim: Claim) -> None:
        """Make a claim again as it is."""
        self._claim([claim])

    @rule(claim=made, state=ENDS, result=RESULTS)
    def mark(self, claim: Claim, state: State, result: bytes | None) -> None:
        """End a run, whether or not it still holds its record."""
        mark = Mark(claim, state, result if state is State.DONE else None)
        assert self._run(self._store.mark([mark])) == [self._model.mark(mark)]
        self._compare()

    @rule(claim=made)
    def renew(self, claim: Claim) -> None:
        """Let a lease begin anew."""
        assert self._run(self._store.renew([claim])) == [self._model.lease(claim, self._now + claim.lease)]
        self._compare()

    @rule(claim=made)
    def release(self, claim: Claim) -> None:
        """Let a lease end."""
        self._run(self._store.release([claim]))
        self._model.lease(claim, self._now)
        self._compare()

    @rule(claim=made, schedule=SCHEDULES, overlap=OVERLAPS, patience=SPANS, wait=SPANS)
    def enter(self, claim: Claim, schedule: str, overlap: Overlap, patience: int, wait: int) -> None:
        """Enter a lane, whether or not the claim still holds its record."""
        entry = Entry(claim, f"{schedule} {self._suffix}", overlap, patience, wait)
        assert self._run(self._store.enter(entry)) is self._model.enter(entry, self._now)
        self._compare()

    @rule(ago=STEPS)
    def expire(self, ago: int) -> None:
        """Forget what is old."""
        before = self._now - ago
        assert self._run(self._store.expire(before, 1_000)) == self._model.expire(before, self._now)
        self._suffix = uuid4()  # which lanes go with it is the store's own affair: there are new ones from now on
        self._compare()

    @rule(job_id=JOBS)
    def forget(self, job_id: str) -> None:
        """Forget a job."""
        assert self._run(self._store.forget(job_id)) == self._model.forget(job_id)
        self._compare()

    @rule(step=STEPS)
    def wait(self, step: int) -> None:
        """Let time pass."""
        self._run(self._clock.advance(timedelta(milliseconds=step)))

    def _claim(self, claims: list[Claim]) -> None:
        expected = [self._model.claim(claim, self._now) for claim in claims]
        assert [_told(answer) for answer in self._run(self._store.claim(claims))] == expected
        self._compare()

    def _compare(self) -> None:
        found = [record for job in ("a", "b", "c") for record in self._run(self._store.records(job))]
        expected = sorted(self._model.records.values(), key=lambda record: (record.job_id, record.consumer))
        assert [self._seen(record) for record in found] == [self._seen(record) for record in expected]

    def _seen(self, record: Record) -> Record:
        """*record*, with every instant in the past, or of a run that has ended, alike: how a store writes an ended
        lease is its own affair."""
        running = record.state is State.RUNNING and record.until > self._now
        return record if running else replace(record, until=0)

    @property
    def _now(self) -> int:
        return self._clock.now_ms()

    def _run(self, question: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(question)


def _told(answer: Answer) -> Answer:
    """*answer* without what its verdict promises nothing about."""
    running, done = answer.verdict is Verdict.RUNNING, answer.verdict is Verdict.DONE
    return Answer(answer.verdict, answer.until if running else 0, answer.result if done else None)


def test_a_store_answers_as_its_model_whatever_is_asked(store_subject: StoreSubject) -> None:
    clock = ManualClock()
    store = store_subject.make(clock)

    class Machine(StoreMachine):
        def __init__(self) -> None:
            super().__init__(runner, store, clock)

    bounds = settings(
        max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    with asyncio.Runner() as runner:
        runner.run(store.migrate())
        runner.run(store.open())
        try:
            run_state_machine_as_test(Machine, settings=bounds)
        finally:
            runner.run(store.close())
