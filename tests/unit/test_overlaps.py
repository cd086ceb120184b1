"""Who may run beside whom: the pure decision, and what it makes of headers that anybody may have written."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.claims import Claim, State
from penstock.overlaps import Admission, Decision, Entry, Lane, OverlapRefused, Standing, Tick, check, decide, tick_of
from penstock.schedules.model import Overlap

NOW = 1_800_000_000_000
PATIENCE, KEPT, LEASE = 120_000, 40_000, 30_000
TOKEN = 7

#: Few of each, so that they meet.
JOBS = st.sampled_from(["a", "b", "c"])
INSTANTS = st.sampled_from([0, NOW - PATIENCE, NOW - 1, NOW, NOW + 1, NOW + LEASE])
LANES = st.builds(Lane, st.none() | JOBS, INSTANTS, st.none() | JOBS, INSTANTS)
STANDINGS = st.dictionaries(JOBS, st.builds(Standing, st.sampled_from(State), st.sampled_from([1, TOKEN]), INSTANTS))
OVERLAPS = st.sampled_from([Overlap.SKIP, Overlap.BUFFER_ONE])


def entry_of(job: str, overlap: Overlap) -> Entry:
    """The wish of *job*, by its token."""
    return Entry(Claim("credits", job, 0, TOKEN, LEASE), "digest", overlap, PATIENCE, KEPT)


def live(standing: Standing | None) -> bool:
    """Whether a run may have an effect right now, for all anybody knows."""
    return standing is not None and standing.state is State.RUNNING and standing.until > NOW


@given(LANES, STANDINGS, JOBS, OVERLAPS)
def test_who_runs_has_the_lane_and_no_live_run_of_another_has_it(
    lane: Lane, standings: dict[str, Standing], job: str, overlap: Overlap
) -> None:
    standings = standings | {job: Standing(State.RUNNING, TOKEN, NOW + LEASE)}
    decision = decide(lane, standings, entry_of(job, overlap), NOW)
    assert (decision.admission is Admission.RUN) == (decision.lane.holder == job)
    if decision.admission is Admission.RUN and lane.holder not in (None, job):
        assert not live(standings.get(lane.holder or ""))


@given(LANES, STANDINGS, JOBS, OVERLAPS)
def test_a_run_that_loses_the_lane_is_fenced_and_no_other_is(
    lane: Lane, standings: dict[str, Standing], job: str, overlap: Overlap
) -> None:
    standings = standings | {job: Standing(State.RUNNING, TOKEN, NOW + LEASE)}
    decision = decide(lane, standings, entry_of(job, overlap), NOW)
    before = None if lane.holder is None else standings.get(lane.holder)
    lost = before is not None and before.state is State.RUNNING and decision.lane.holder != lane.holder
    assert decision.fenced == (lane.holder if lost else None)
    assert decision.fenced != job


@given(LANES, STANDINGS, JOBS, OVERLAPS)
def test_only_a_tick_that_may_wait_takes_the_place_to_wait_and_it_asks_in_vain_for_no_more_than_that(
    lane: Lane, standings: dict[str, Standing], job: str, overlap: Overlap
) -> None:
    standings = standings | {job: Standing(State.RUNNING, TOKEN, NOW + LEASE)}
    decision = decide(lane, standings, entry_of(job, overlap), NOW)
    if decision.admission is Admission.WAIT:
        assert (overlap, decision.lane.waiting, decision.lane.waits_until) == (Overlap.BUFFER_ONE, job, NOW + KEPT)
    if decision.admission is Admission.SKIP and overlap is Overlap.BUFFER_ONE:
        assert decision.lane.waiting not in (None, job)


@given(LANES, STANDINGS, JOBS, OVERLAPS)
def test_nobody_waits_for_ever(lane: Lane, standings: dict[str, Standing], job: str, overlap: Overlap) -> None:
    """Whatever is remembered: when nothing is heard of anybody else for long enough, who asks runs."""
    later = NOW + LEASE + PATIENCE
    standings = standings | {job: Standing(State.RUNNING, TOKEN, later + LEASE)}
    assert decide(lane, standings, entry_of(job, overlap), later).admission is Admission.RUN


@given(LANES, STANDINGS, JOBS, OVERLAPS)
def test_who_holds_no_record_changes_nothing(
    lane: Lane, standings: dict[str, Standing], job: str, overlap: Overlap
) -> None:
    for standing in (None, Standing(State.RUNNING, 1, NOW + LEASE), Standing(State.MOVED, TOKEN, NOW + LEASE)):
        known = {other: each for other, each in standings.items() if other != job}
        known |= {} if standing is None else {job: standing}
        assert decide(lane, known, entry_of(job, overlap), NOW) == Decision(Admission.LOST, lane)


# --- headers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.BUFFER_ONE])
def test_a_tick_is_known_by_its_headers(overlap: Overlap) -> None:
    headers = {"penstock-schedule": "daily digest Zoë", "penstock-overlap": overlap.value}
    assert tick_of(headers) == Tick("daily digest Zoë", overlap)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"penstock-schedule": "digest"},
        {"penstock-schedule": "digest", "penstock-overlap": "allow"},
        {"penstock-schedule": {"a": 1}, "penstock-overlap": "allow"},
    ],
)
def test_a_job_that_may_run_beside_others_is_no_tick_to_judge(headers: dict[str, Any]) -> None:
    assert tick_of(headers) is None
    check(headers, "email.send", remembered=False)


@pytest.mark.parametrize("overlap", ["", "SKIP", "skip ", "always", "x" * 10_000, 1, True, None, b"skip", ["skip"]])
def test_an_unknown_overlap_is_refused_whatever_its_type(overlap: object) -> None:
    with pytest.raises(OverlapRefused, match="penstock-overlap is none of allow, skip, buffer-one"):
        tick_of({"penstock-schedule": "digest", "penstock-overlap": overlap})


@pytest.mark.parametrize("name", ["", "x" * 256, "x" * 10_240, "a\nb", "a\0b", "\ud800", 5, None, b"digest", {"a": 1}])
def test_a_name_that_is_none_is_refused(name: object) -> None:
    with pytest.raises(OverlapRefused, match="penstock-schedule is no text of 1 to 255 printable characters"):
        tick_of({"penstock-schedule": name, "penstock-overlap": "skip"})


def test_a_tick_without_a_name_is_refused() -> None:
    with pytest.raises(OverlapRefused, match="penstock-schedule"):
        tick_of({"penstock-overlap": "buffer-one"})


def test_a_tick_whose_handler_has_no_store_is_refused_with_what_to_do() -> None:
    headers = {"penstock-schedule": "digest", "penstock-overlap": "skip"}
    check(headers, "mail.digest", remembered=True)
    with pytest.raises(OverlapRefused, match=r"digest says overlap: skip, but .* mail\.digest .*once='lease'.*allow"):
        check(headers, "mail.digest", remembered=False)
