"""What every store promises about what it remembers of jobs, and for how long."""

from __future__ import annotations

import asyncio

from penstock.claims import Mark, State, Verdict
from penstock.storing import Store
from penstock.testing.clock import ManualClock
from tests.conformance.store_steps import LEASE, MINUTE, claim_of, ended, taken, verdict_of


async def test_old_records_are_forgotten_but_for_those_that_a_live_lease_holds(
    store: Store, clock: ManualClock
) -> None:
    for state in (State.DONE, State.MOVED, State.DEAD):
        await ended(store, claim_of(state.value), state)
    await taken(store, claim_of("expired", lease=10))
    await taken(store, claim_of("live", lease=3 * LEASE))
    await clock.advance(MINUTE)
    await ended(store, claim_of("young"), State.DONE)
    assert await store.expire(clock.now_ms(), 100) == 4
    assert [record.job_id for job in ("live", "young", "expired", "done") for record in await store.records(job)] == [
        "live",
        "young",
    ]
    await clock.advance(3 * MINUTE)
    assert await store.expire(clock.now_ms(), 100) == 2


async def test_what_counts_is_when_a_job_was_claimed_last(store: Store, clock: ManualClock) -> None:
    await ended(store, claim_of(), State.MOVED)
    first = clock.now_ms()
    await clock.advance(MINUTE)
    await ended(store, claim_of(copy=1), State.MOVED)
    assert await store.expire(first + 1, 100) == 0
    assert await store.expire(clock.now_ms(), 100) == 0
    assert await store.expire(clock.now_ms() + 1, 100) == 1


async def test_no_more_are_forgotten_at_once_than_asked_for(store: Store, clock: ManualClock) -> None:
    claims = [claim_of(f"job {number}") for number in range(250)]
    await store.claim(claims)
    await store.mark([Mark(claim, State.DONE) for claim in claims])
    before = clock.now_ms() + 1
    assert [await store.expire(before, 120) for _ in range(4)] == [120, 120, 10, 0]


async def test_two_that_forget_at_once_forget_each_record_once(
    store: Store, other_store: Store, clock: ManualClock
) -> None:
    claims = [claim_of(f"job {number}") for number in range(300)]
    await store.claim(claims)
    await store.mark([Mark(claim, State.DONE) for claim in claims])
    before = clock.now_ms() + 1
    forgotten = await asyncio.gather(*(each.expire(before, 100) for _ in range(4) for each in (store, other_store)))
    assert sum(forgotten) + await store.expire(before, 1000) == 300


async def test_a_forgotten_job_runs_again_at_every_consumer(store: Store) -> None:
    old = await ended(store, claim_of(), State.DONE)
    await ended(store, claim_of(consumer="mailer"), State.DONE)
    await ended(store, claim_of("another"), State.DONE)
    assert await store.forget("job") == 2
    assert await store.forget("job") == 0
    assert await store.mark([Mark(old, State.DONE)]) == [False]
    assert await verdict_of(store, claim_of()) is Verdict.FRESH
    assert await verdict_of(store, claim_of(consumer="mailer")) is Verdict.FRESH
    assert await verdict_of(store, claim_of("another")) is Verdict.DONE


async def test_status_counts_records_by_state_and_tells_the_oldest_claim(store: Store, clock: ManualClock) -> None:
    empty = await store.status()
    assert (dict(empty.records), empty.oldest) == ({}, None)
    first = clock.now_ms()
    await ended(store, claim_of("1"), State.DONE)
    await clock.advance(MINUTE)
    await ended(store, claim_of("2"), State.DONE)
    await ended(store, claim_of("3"), State.DEAD)
    await taken(store, claim_of("4"))
    status = await store.status()
    assert (dict(status.records), status.oldest) == ({"done": 2, "dead": 1, "running": 1}, first)
    assert status.schema == status.newest_schema == empty.schema


async def test_an_open_store_answers_a_ping_and_has_its_place_in_its_name(store: Store) -> None:
    await store.ping()
    assert "://" in store.shown
