"""What becomes of a delivery whose claim was refused, and what is kept of a result: pure decisions."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from penstock import Job
from penstock.claim_outcomes import refusal, result_of
from penstock.claims import MAX_RESULT, Answer, Verdict
from penstock.outcome import Dead, DeadReason, Duplicate, Snoozed

NOW = 1_800_000_000_000


def job(age: float | None = None) -> Job[dict[str, Any]]:
    """A job first published *age* seconds ago."""
    return Job("j", "k", {}, published=None if age is None else NOW - int(age * 1000))


@pytest.mark.parametrize(
    ("age", "left", "wait"),
    [
        (None, 30, 1),  # nobody knows its age: look again soon
        (0.2, 30, 1),  # a young job's twin mostly ends at once
        (3, 30, 3),
        (600, 30, 5),
        (600, 2, 2),  # no longer than the lease holds
        (600, -1, 1),  # by our clock it is over already, by the store's it is not
    ],
)
def test_a_twin_is_waited_for_the_longer_the_older_the_job(age: float | None, left: float, wait: float) -> None:
    refused = refusal(Answer(Verdict.RUNNING, NOW + int(left * 1000)), job(age), NOW)
    assert isinstance(refused, Snoozed)
    assert (refused.delay, refused.same_copy) == (timedelta(seconds=wait), True)


@pytest.mark.parametrize("verdict", [Verdict.DONE, Verdict.MOVED, Verdict.DEAD, Verdict.SUPERSEDED])
def test_what_ended_or_went_on_is_a_duplicate(verdict: Verdict) -> None:
    assert isinstance(refusal(Answer(verdict), job(), NOW), Duplicate)


def test_a_conflict_is_dead_and_says_what_to_do() -> None:
    refused = refusal(Answer(Verdict.CONFLICT), job(), NOW)
    assert isinstance(refused, Dead)
    assert (refused.reason, "give this one its own" in refused.failure.text) == (DeadReason.CONFLICT, True)


class Mute:
    """A result that cannot say what it is."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def test_no_result_can_make_an_effect_fail() -> None:
    assert result_of(None) is None
    assert result_of({"added": 5}) == b'{"added":5}'
    assert b"Mute" in (result_of(Mute()) or b"")
    assert len(result_of("x" * (MAX_RESULT + 1)) or b"") < 100
