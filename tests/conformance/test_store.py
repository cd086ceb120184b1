"""What every store promises about claims, marks and leases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import product

import pytest

from penstock.claims import MAX_RESULT, Answer, Claim, Mark, Record, State, Verdict, decide, new_token
from penstock.storing import Store
from penstock.testing.clock import ManualClock
from tests.conformance.store_steps import LEASE, MINUTE, claim_of, ended, taken, verdict_of
from tests.conformance.store_subjects import MakeStore

BRIEF = 10


# --- the copy fence -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One row of the table: how far the record has come, and who asks."""

    state: State
    record_copy: int
    record_hash: str | None
    live: bool
    own_token: bool
    copy: int
    args_hash: str | None

    @property
    def job_id(self) -> str:
        """An id that tells the row."""
        return repr(self)

    def first(self) -> Claim:
        """The claim of copy 0, which alone tells the hash of the arguments."""
        return replace(claim_of(self.job_id, lease=self._lease), args_hash=self.record_hash)

    def last(self, first: Claim) -> Claim:
        """The claim that the record holds in the end."""
        return first if self.record_copy == 0 else claim_of(self.job_id, copy=self.record_copy, lease=self._lease)

    def asking(self, last: Claim) -> Claim:
        """The claim the row is about."""
        token = last.token if self.own_token else new_token()
        return Claim("credits", self.job_id, self.copy, token, LEASE, self.args_hash)

    @property
    def _lease(self) -> int:
        return LEASE if self.live else BRIEF


def rows() -> Iterator[Row]:
    """Every row: record state × its copy and hash × lease × whose token × copy and hash of who asks."""
    hashes = (None, "hash of these", "hash of those")
    for state, record_copy, record_hash in product(State, (0, 1), hashes[:2]):
        for live, own_token, copy, args_hash in product((True, False), (True, False), (0, 1, 2), hashes):
            yield Row(state, record_copy, record_hash, live, own_token, copy, args_hash)


def remembered(row: Row, claim: Claim, now: int) -> Record:
    """The record a row begins with, claimed at *now*."""
    result = b'"result"' if row.state is State.DONE else None
    until = now + claim.lease
    return Record(*claim.key, row.record_copy, row.state, claim.token, until, row.record_hash, result, now)


async def recorded(store: Store, table: Sequence[Row], now: int) -> Sequence[Record]:
    """The records of *table*, made through claims and marks."""
    firsts = [row.first() for row in table]
    lasts = [row.last(first) for row, first in zip(table, firsts, strict=True)]
    records = [remembered(row, last, now) for row, last in zip(table, lasts, strict=True)]
    await store.claim(firsts)
    await store.claim([last for row, last in zip(table, lasts, strict=True) if row.record_copy])
    ends = [
        Mark(last, record.state, record.result)
        for last, record in zip(lasts, records, strict=True)
        if record.state is not State.RUNNING
    ]
    assert all(await store.mark(ends))
    return records


def after(record: Record, claim: Claim, now: int) -> Record:
    """*record*, taken over by *claim*."""
    args_hash = claim.args_hash or record.args_hash
    return Record(*claim.key, claim.copy, State.RUNNING, claim.token, now + claim.lease, args_hash, None, now)


async def test_every_row_of_the_table_is_answered_as_decide_says_and_only_fresh_ones_change_their_record(
    store: Store, clock: ManualClock
) -> None:
    table = list(rows())
    records = await recorded(store, table, clock.now_ms())
    assert [await store.records(row.job_id) for row in table] == [[record] for record in records]
    await clock.advance(timedelta(seconds=1))
    claims = [
        row.asking(Claim(record.consumer, record.job_id, record.copy, record.token, LEASE))
        for row, record in zip(table, records, strict=True)
    ]

    answers = await store.claim(claims)

    now = clock.now_ms()
    expected = [decide(record, claim, now) for record, claim in zip(records, claims, strict=True)]
    assert [(row, answer.verdict) for row, answer in zip(table, answers, strict=True)] == list(
        zip(table, expected, strict=True)
    )
    assert set(expected) == set(Verdict)
    for record, claim, answer in zip(records, claims, answers, strict=True):
        left = after(record, claim, now) if answer.verdict is Verdict.FRESH else record
        assert await store.records(claim.job_id) == [left]


async def test_a_job_that_nothing_is_remembered_of_is_fresh_whatever_its_copy(store: Store, clock: ManualClock) -> None:
    claims = [claim_of(f"job {copy}", copy=copy) for copy in (0, 1, 1_000_000)]
    assert [answer.verdict for answer in await store.claim(claims)] == [Verdict.FRESH] * 3
    [record] = await store.records("job 1000000")
    assert record == after(record, claims[2], clock.now_ms())


async def test_a_claim_of_a_running_job_is_told_until_when_its_lease_holds(store: Store, clock: ManualClock) -> None:
    await taken(store, claim_of())
    assert await store.claim([claim_of()]) == [Answer(Verdict.RUNNING, clock.now_ms() + LEASE)]


async def test_a_lease_holds_to_its_last_millisecond(store: Store, clock: ManualClock) -> None:
    await taken(store, claim_of())
    await clock.advance(timedelta(milliseconds=LEASE - 1))
    assert await verdict_of(store, claim_of()) is Verdict.RUNNING
    await clock.advance(timedelta(milliseconds=1))
    assert await verdict_of(store, claim_of()) is Verdict.FRESH


@pytest.mark.parametrize(
    "result",
    [None, b"null", b'{"sum":5}', '"Zoë ✓ \U0001f600"'.encode(), b'"\\u0000"', b'"' + b"x" * (MAX_RESULT - 2) + b'"'],
)
async def test_a_claim_of_a_job_that_is_done_is_told_its_result(store: Store, result: bytes | None) -> None:
    await ended(store, claim_of(), State.DONE, result)
    [answer] = await store.claim([claim_of(copy=1)])
    assert (answer.verdict, answer.result) == (Verdict.DONE, result)
    assert [record.result for record in await store.records("job")] == [result]


async def test_a_claim_whose_answer_was_lost_may_be_made_again_as_it_is(store: Store, clock: ManualClock) -> None:
    claim = await taken(store, claim_of())
    await clock.advance(MINUTE / 2)
    await taken(store, claim)
    [record] = await store.records("job")
    assert (record.until, record.claimed) == (clock.now_ms() + LEASE, clock.now_ms())


async def test_consumers_do_not_see_each_others_claims(store: Store) -> None:
    claims = [claim_of(consumer=consumer) for consumer in ("mailer", "credits", "audit")]
    assert [answer.verdict for answer in await store.claim(claims)] == [Verdict.FRESH] * 3
    assert [record.consumer for record in await store.records("job")] == ["audit", "credits", "mailer"]


async def test_answers_come_in_the_order_of_the_claims(store: Store) -> None:
    await ended(store, claim_of("a"), State.DONE)
    await ended(store, claim_of("c"), State.DEAD)
    answers = await store.claim([claim_of(job_id) for job_id in ("c", "b", "a")])
    assert [answer.verdict for answer in answers] == [Verdict.DEAD, Verdict.FRESH, Verdict.DONE]


@pytest.mark.parametrize(
    "job_id", ["ID with spaces", "a'b\"c", "50%s %(x)s", "\\", "Zoë", "\U0001f600", "a\0b", "x" * 255]
)
async def test_any_id_is_claimed_once_marked_and_forgotten(store: Store, job_id: str) -> None:
    claim = await taken(store, replace(claim_of(job_id), token=2**63 - 1))
    assert await verdict_of(store, claim_of(job_id)) is Verdict.RUNNING
    assert await store.renew([claim]) == [True]
    assert await store.mark([Mark(claim, State.MOVED)]) == [True]
    assert [(record.state, record.token) for record in await store.records(job_id)] == [(State.MOVED, 2**63 - 1)]
    assert await store.forget(job_id) == 1


# --- many at once ---------------------------------------------------------------------------------------------------


async def test_of_a_thousand_pairs_of_concurrent_claims_exactly_one_each_is_fresh(
    store: Store, other_store: Store
) -> None:
    jobs = [f"job {number}" for number in range(1000)]
    pairs = [verdict_of(each, claim_of(job_id)) for job_id in jobs for each in (store, other_store)]
    verdicts = await asyncio.gather(*pairs)
    assert all(
        set(pair) == {Verdict.FRESH, Verdict.RUNNING} for pair in zip(verdicts[::2], verdicts[1::2], strict=True)
    )


async def test_batches_that_meet_in_opposite_order_are_all_answered_and_each_job_runs_once(
    store: Store, other_store: Store
) -> None:
    jobs = [f"job {number}" for number in range(200)]
    forwards = [store.claim([claim_of(job_id, copy=copy) for job_id in jobs]) for copy in range(10)]
    backwards = [other_store.claim([claim_of(job_id, copy=copy) for job_id in reversed(jobs)]) for copy in range(10)]
    answers = await asyncio.gather(*forwards, *backwards)
    fresh: dict[tuple[str, int], int] = {}
    for number, batch in enumerate(answers):
        order = jobs if number < 10 else jobs[::-1]
        for job_id, answer in zip(order, batch, strict=True):
            fresh[job_id, number % 10] = fresh.get((job_id, number % 10), 0) + (answer.verdict is Verdict.FRESH)
    assert max(fresh.values()) == 1
    assert all(fresh[job_id, 9] == 1 for job_id in jobs)


# --- marks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.DONE, State.MOVED, State.DEAD])
async def test_a_run_is_ended_by_its_own_claim_once_and_the_same_mark_again_is_true(store: Store, state: State) -> None:
    mark = Mark(await taken(store, claim_of()), state)
    assert await store.mark([mark]) == [True]
    assert await store.mark([mark]) == [True]
    for other in {State.DONE, State.MOVED, State.DEAD} - {state}:
        assert await store.mark([replace(mark, state=other)]) == [False]
    assert [record.state for record in await store.records("job")] == [state]


async def test_a_run_that_was_taken_over_may_not_be_ended_by_the_old_claim(store: Store, clock: ManualClock) -> None:
    old = await taken(store, claim_of())
    await clock.advance(MINUTE)
    new = await taken(store, claim_of())
    assert await store.mark([Mark(old, State.DONE, b"1")]) == [False]
    assert await store.mark([Mark(new, State.DONE, b"2")]) == [True]
    assert [record.result for record in await store.records("job")] == [b"2"]


async def test_a_run_whose_lease_has_expired_may_still_be_ended_while_nobody_took_it_over(
    store: Store, clock: ManualClock
) -> None:
    claim = await taken(store, claim_of())
    await clock.advance(MINUTE)
    assert await store.mark([Mark(claim, State.DONE)]) == [True]


async def test_marks_of_one_call_are_answered_each_for_itself(store: Store) -> None:
    held, done = await taken(store, claim_of("held")), await ended(store, claim_of("done"), State.DONE)
    marks = [Mark(claim_of("unknown"), State.DONE), Mark(held, State.DEAD), Mark(done, State.MOVED)]
    assert await store.mark(marks) == [False, True, False]
    assert await store.records("unknown") == []


# --- leases ---------------------------------------------------------------------------------------------------------


async def test_a_renewed_lease_begins_anew(store: Store, clock: ManualClock) -> None:
    claim = await taken(store, claim_of())
    await clock.advance(MINUTE / 2)
    assert await store.renew([claim]) == [True]
    await clock.advance(MINUTE * 0.75)
    assert await verdict_of(store, claim_of()) is Verdict.RUNNING


async def test_an_expired_lease_may_be_renewed_while_nobody_took_the_job_over(store: Store, clock: ManualClock) -> None:
    claim = await taken(store, claim_of())
    await clock.advance(MINUTE)
    assert await store.renew([claim]) == [True]
    assert await verdict_of(store, claim_of()) is Verdict.RUNNING


async def test_only_the_holder_of_a_run_that_goes_on_may_renew_it(store: Store) -> None:
    held, done = await taken(store, claim_of("held")), await ended(store, claim_of("done"), State.DONE)
    stranger = claim_of("held")
    assert await store.renew([stranger]) == [False]
    assert await store.renew([claim_of("unknown"), held, done]) == [False, True, False]


async def test_a_released_job_may_be_claimed_again_at_once(store: Store) -> None:
    claim = await taken(store, claim_of())
    await store.release([claim])
    await taken(store, claim_of())


async def test_a_release_by_another_or_after_the_end_changes_nothing(store: Store) -> None:
    await taken(store, claim_of("held"))
    done = await ended(store, claim_of("done"), State.DONE, b"1")
    await store.release([claim_of("held"), done, claim_of("unknown")])
    answers = await store.claim([claim_of("held"), claim_of("done")])
    assert [answer.verdict for answer in answers] == [Verdict.RUNNING, Verdict.DONE]
    assert await store.records("unknown") == []


async def test_without_a_clock_of_ours_the_store_measures_leases_by_its_own(make_store: MakeStore) -> None:
    store = make_store()
    await store.migrate()
    await store.open()
    before = time.time_ns() // 1_000_000
    claim = await taken(store, claim_of())
    [answer] = await store.claim([claim_of()])
    [record] = await store.records("job")
    within = range(before - 1, time.time_ns() // 1_000_000 + 2)
    assert answer == Answer(Verdict.RUNNING, record.claimed + LEASE)
    assert record.claimed in within
    assert await store.expire(before, 10) == 0
    await store.release([claim])
    await taken(store, claim_of())
