"""What every store promises about ticks of a schedule that must not run beside each other."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import pytest

from penstock.claims import Claim, Mark, State, Verdict, new_token
from penstock.errors import ConfigError
from penstock.overlaps import Admission, Entry
from penstock.schedules.model import Overlap
from penstock.storing import EffectStore, Store
from penstock.testing.clock import ManualClock
from tests.conformance.store_steps import LEASE, MINUTE, claim_of, taken, verdict_of
from tests.conformance.store_subjects import EffectSubject, MakeStore, StoreSubject

RUN, WAIT, SKIP, LOST = Admission.RUN, Admission.WAIT, Admission.SKIP, Admission.LOST
SKIPS, BUFFERS = Overlap.SKIP, Overlap.BUFFER_ONE

#: How long a tick that runs may be away beyond its lease, and how long the place of one that waits is kept (ms).
PATIENCE, KEPT = 4 * LEASE, LEASE


def entry_of(claim: Claim, overlap: Overlap = SKIPS, *, schedule: str = "digest", patience: int = PATIENCE) -> Entry:
    """The wish of *claim* to run as a tick of *schedule*."""
    return Entry(claim, schedule, overlap, patience, KEPT)


async def asked(
    store: Store, job_id: str, overlap: Overlap = SKIPS, *, schedule: str = "digest"
) -> tuple[Claim, Admission]:
    """A fresh claim of *job_id*, and what it is answered as a tick of *schedule*."""
    claim = await taken(store, claim_of(job_id))
    return claim, await store.enter(entry_of(claim, overlap, schedule=schedule))


async def answer_of(store: Store, job_id: str, overlap: Overlap = SKIPS, **which: str) -> Admission:
    """What a fresh claim of *job_id* is answered as a tick."""
    return (await asked(store, job_id, overlap, **which))[1]


async def running(store: Store, job_id: str = "first") -> Claim:
    """The claim of a tick that runs."""
    claim, answer = await asked(store, job_id)
    assert answer is RUN
    return claim


async def state_of(store: Store, job_id: str) -> State:
    """Where a job stands."""
    [record] = await store.records(job_id)
    return record.state


# --- skip -----------------------------------------------------------------------------------------------------------


async def test_a_tick_runs_when_no_other_has_come_before(store: Store) -> None:
    claim = await running(store)
    assert await store.mark([Mark(claim, State.DONE)]) == [True]


@pytest.mark.parametrize("how", [State.DONE, State.DEAD])
async def test_a_tick_is_skipped_until_the_one_before_it_has_ended(store: Store, how: State) -> None:
    first = await running(store)
    assert await answer_of(store, "second") is SKIP
    assert await answer_of(store, "third") is SKIP
    await store.mark([Mark(first, how)])
    assert await answer_of(store, "fourth") is RUN


@pytest.mark.parametrize("copy", [0, 1, 7])
async def test_a_skipped_tick_is_remembered_and_no_copy_of_it_ever_runs(store: Store, copy: int) -> None:
    first = await running(store)
    assert await answer_of(store, "second") is SKIP
    await store.mark([Mark(first, State.DONE)])
    assert await state_of(store, "second") is State.SKIPPED
    assert await verdict_of(store, claim_of("second", copy=copy)) is Verdict.SKIPPED


async def test_a_retry_that_is_to_come_has_not_ended(store: Store, clock: ManualClock) -> None:
    first = await running(store)
    await store.enter(entry_of(first, patience=10 * LEASE))
    await store.mark([Mark(first, State.MOVED)])
    await clock.advance(9 * MINUTE)
    assert await answer_of(store, "second") is SKIP
    retried = await taken(store, claim_of("first", copy=1))
    assert await store.enter(entry_of(retried)) is RUN


async def test_schedules_and_consumers_each_have_a_lane_of_their_own(store: Store) -> None:
    await running(store)
    assert await answer_of(store, "second", schedule="cleanup") is RUN
    elsewhere = await taken(store, claim_of("third", consumer="mailer"))
    assert await store.enter(entry_of(elsewhere)) is RUN
    assert await answer_of(store, "fourth") is SKIP


async def test_a_tick_that_runs_may_ask_again_as_it_is(store: Store) -> None:
    claim = await running(store)
    assert await store.enter(entry_of(claim)) is RUN
    assert await store.mark([Mark(claim, State.DONE)]) == [True]


async def test_the_status_counts_skipped_ticks(store: Store) -> None:
    await running(store)
    await answer_of(store, "second")
    assert dict((await store.status()).records) == {"running": 1, "skipped": 1}


@pytest.mark.parametrize("name", ["ID with spaces", "a'b\"c", "50%s %(x)s", "\\", "Zoë", "\U0001f600", "x" * 255])
async def test_any_name_and_any_id_will_do(store: Store, name: str) -> None:
    assert await answer_of(store, name + "\0", schedule=name) is RUN
    assert await answer_of(store, name[1:] + "2", schedule=name) is SKIP


# --- one that waits -------------------------------------------------------------------------------------------------


async def test_one_tick_waits_and_further_ones_are_skipped(store: Store) -> None:
    first = await running(store)
    assert await answer_of(store, "second", BUFFERS) is WAIT
    assert await answer_of(store, "third", BUFFERS) is SKIP
    assert await answer_of(store, "second", BUFFERS) is WAIT
    await store.mark([Mark(first, State.DONE)])
    assert await answer_of(store, "second", BUFFERS) is RUN


async def test_once_the_first_has_ended_the_one_that_waits_is_next_whoever_asks(store: Store) -> None:
    first = await running(store)
    assert await answer_of(store, "second", BUFFERS) is WAIT
    await store.mark([Mark(first, State.DONE)])
    assert await answer_of(store, "third", BUFFERS) is WAIT
    assert await answer_of(store, "fourth", SKIPS) is SKIP
    second, answer = await asked(store, "second", BUFFERS)
    assert answer is RUN
    await store.mark([Mark(second, State.DEAD)])
    assert await answer_of(store, "third", BUFFERS) is RUN


async def test_the_place_of_one_that_does_not_come_back_is_given_to_another(store: Store, clock: ManualClock) -> None:
    first = await running(store)
    assert await answer_of(store, "second", BUFFERS) is WAIT
    await clock.advance(timedelta(milliseconds=KEPT - 1))
    assert await answer_of(store, "third", BUFFERS) is SKIP
    await clock.advance(timedelta(milliseconds=1))
    assert await answer_of(store, "fourth", BUFFERS) is WAIT
    assert await answer_of(store, "second", BUFFERS) is SKIP
    await store.mark([Mark(first, State.DONE)])
    assert await answer_of(store, "fourth", BUFFERS) is RUN


async def test_a_tick_that_waits_may_be_claimed_again_at_once(store: Store) -> None:
    await running(store)
    await asked(store, "second", BUFFERS)
    assert await verdict_of(store, claim_of("second")) is Verdict.FRESH


# --- one that is not heard of ---------------------------------------------------------------------------------------


async def test_a_run_that_broke_off_is_expected_back_and_goes_on(store: Store, clock: ManualClock) -> None:
    await running(store)
    await clock.advance(timedelta(milliseconds=LEASE + PATIENCE - 1))
    assert await answer_of(store, "second") is SKIP
    again = await taken(store, claim_of("first"))
    assert await store.enter(entry_of(again)) is RUN


async def test_a_run_that_was_given_back_is_expected_from_then_on(store: Store, clock: ManualClock) -> None:
    claim = await running(store)
    for _ in range(20):
        await clock.advance(MINUTE / 2)
        await store.renew([claim])
    await store.release([claim])
    await clock.advance(timedelta(milliseconds=PATIENCE - 1))
    assert await answer_of(store, "second") is SKIP
    await clock.advance(timedelta(milliseconds=1))
    assert await answer_of(store, "third") is RUN


async def test_a_run_that_is_renewed_keeps_its_place(store: Store, clock: ManualClock) -> None:
    claim = await running(store)
    for _ in range(20):
        await clock.advance(MINUTE / 2)
        assert await store.renew([claim]) == [True]
    assert await answer_of(store, "second") is SKIP


async def test_a_run_that_is_not_heard_of_loses_its_place_and_may_not_end(store: Store, clock: ManualClock) -> None:
    lost = await running(store)
    await clock.advance(timedelta(milliseconds=LEASE + PATIENCE))
    second = await running(store, "second")
    assert await store.renew([lost]) == [False]
    assert await store.mark([Mark(lost, State.DONE)]) == [False]
    assert await answer_of(store, "third") is SKIP
    assert await answer_of(store, "first", BUFFERS) is WAIT
    await store.mark([Mark(second, State.DONE)])
    assert await answer_of(store, "first", BUFFERS) is RUN


async def test_the_effect_of_a_run_that_lost_its_place_is_refused(
    effect_store: EffectStore, effect_subject: EffectSubject, clock: ManualClock
) -> None:
    lost = await running(effect_store)
    await clock.advance(timedelta(milliseconds=LEASE + PATIENCE))
    second = await running(effect_store, "second")
    for claim, holds in ((lost, False), (second, True)):
        with contextlib.suppress(LookupError):
            async with effect_store.effect() as effect:
                await effect.transaction.execute("UPDATE accounts SET credit = credit + 5")
                if not await effect.complete(claim, None):
                    raise LookupError("taken over")
                assert holds
    assert effect_subject.execute("SELECT credit FROM accounts") == [(5,)]


async def test_a_run_that_comes_back_late_goes_on_when_nobody_took_its_place(store: Store, clock: ManualClock) -> None:
    await running(store)
    await clock.advance(timedelta(days=2))
    again = await running(store)
    assert await answer_of(store, "second") is SKIP
    assert await store.mark([Mark(again, State.DONE)]) == [True]


async def test_a_retry_that_never_comes_gives_its_place_up(store: Store, clock: ManualClock) -> None:
    first = await running(store)
    await store.mark([Mark(first, State.MOVED)])
    await clock.advance(timedelta(milliseconds=PATIENCE - 1))
    assert await answer_of(store, "second") is SKIP
    await clock.advance(timedelta(milliseconds=1))
    await running(store, "third")
    retried = await taken(store, claim_of("first", copy=1))
    assert await store.enter(entry_of(retried)) is SKIP


async def test_who_waits_takes_the_place_of_one_that_is_not_heard_of(store: Store, clock: ManualClock) -> None:
    lost = await running(store)
    await clock.advance(timedelta(milliseconds=LEASE + PATIENCE - 1))
    assert await answer_of(store, "second", BUFFERS) is WAIT
    await clock.advance(timedelta(milliseconds=1))
    assert await answer_of(store, "third", BUFFERS) is WAIT
    assert await store.mark([Mark(lost, State.DONE)]) == [False]
    assert await answer_of(store, "second", BUFFERS) is RUN


async def test_a_claim_that_was_taken_over_has_no_say(store: Store, clock: ManualClock) -> None:
    old = await running(store)
    await clock.advance(MINUTE)
    new = await taken(store, claim_of("first"))
    assert await store.enter(entry_of(old)) is LOST
    assert await store.enter(entry_of(new)) is RUN
    assert await store.enter(entry_of(claim_of("unknown"))) is LOST
    await store.mark([Mark(new, State.DONE)])
    assert await store.enter(entry_of(new)) is LOST


async def test_a_forgotten_tick_has_no_place(store: Store) -> None:
    await running(store)
    assert await answer_of(store, "second", BUFFERS) is WAIT
    assert await store.forget("first") == 1
    assert await store.forget("second") == 1
    assert await answer_of(store, "third") is RUN


async def test_lanes_are_forgotten_with_their_last_tick_and_not_before(store: Store, clock: ManualClock) -> None:
    claim = await running(store)
    await clock.advance(timedelta(days=1))
    await store.renew([claim])
    assert await store.expire(clock.now_ms(), 100) == 0
    assert await answer_of(store, "second") is SKIP
    await store.mark([Mark(claim, State.DONE)])
    await clock.advance(timedelta(days=1))
    assert await store.expire(clock.now_ms(), 100) == 2
    assert await answer_of(store, "third") is RUN


# --- many at once ---------------------------------------------------------------------------------------------------


async def test_of_many_ticks_that_start_at_the_same_moment_one_runs_and_one_waits(
    store: Store, other_store: Store
) -> None:
    stores = [store, other_store] * 20
    answers = await asyncio.gather(*(answer_of(each, f"tick {n}", BUFFERS) for n, each in enumerate(stores)))
    assert sorted(answers) == sorted([RUN, WAIT] + [SKIP] * 38)


async def test_schedules_that_start_at_the_same_moment_run_one_tick_each(store: Store, other_store: Store) -> None:
    pairs = [
        answer_of(each, f"{name} {n}", schedule=f"schedule {name}")
        for name in range(50)
        for n, each in enumerate((store, other_store))
    ]
    answers = await asyncio.gather(*pairs)
    assert all({*pair} == {RUN, SKIP} for pair in zip(answers[::2], answers[1::2], strict=True))


# --- by the store's own clock, and on a schema that was there before ------------------------------------------------


async def test_without_a_clock_of_ours_the_store_judges_by_its_own(make_store: MakeStore) -> None:
    store = make_store()
    await store.migrate()
    await store.open()
    first, second = await taken(store, claim_of("first")), await taken(store, claim_of("second"))
    assert await store.enter(entry_of(first, patience=0)) is RUN
    await store.release([first])
    assert await store.enter(entry_of(second, patience=0)) is RUN
    assert await answer_of(store, "third") is SKIP


async def test_an_earlier_schema_is_updated_and_what_it_remembers_stays(
    make_store: MakeStore, store_subject: StoreSubject
) -> None:
    store_subject.make_version_1()
    store = make_store()
    newest = (await store.status()).newest_schema
    assert await store.migrate() == (1, newest)
    await store.open()
    [answer] = await store.claim([Claim("credits", "job", 0, new_token(), LEASE)])
    assert (answer.verdict, answer.result) == (Verdict.DONE, b"5")
    await running(store)
    assert await answer_of(store, "second") is SKIP


async def test_an_earlier_schema_is_not_opened_and_says_what_to_run(
    make_store: MakeStore, store_subject: StoreSubject
) -> None:
    store_subject.make_version_1()
    newest = (await make_store().status()).newest_schema
    with pytest.raises(ConfigError, match=f"has schema 1, not {newest}: run penstock store migrate"):
        await make_store().open()
