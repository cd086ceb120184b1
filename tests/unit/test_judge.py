"""What becomes of a job whose handler raised: the pure decision, case by case."""

from __future__ import annotations

from datetime import timedelta

import pytest

from penstock.errors import JobCrashed, JobTimeout, Reject, Retry, SchemaError, Snooze, UsageError
from penstock.outcome import Dead, DeadReason, Outcome, Retried, Snoozed, judge
from penstock.retry import RetryPolicy

POLICY = RetryPolicy(max_attempts=3, give_up_on=(PermissionError,), delays={ConnectionError: timedelta(seconds=7)})
YOUNG = timedelta(minutes=1)


def verdict(error: BaseException, attempt: int = 1, age: timedelta = YOUNG) -> Outcome:
    """What POLICY makes of *error*."""
    return judge(error, attempt, POLICY, age=age)


def delay_of(outcome: Outcome) -> timedelta:
    """When a retried or snoozed job comes back."""
    assert isinstance(outcome, Retried | Snoozed)
    return outcome.delay


def reason_of(outcome: Outcome) -> DeadReason:
    """Why a job is dead."""
    assert isinstance(outcome, Dead)
    return outcome.reason


def test_an_error_is_retried_by_the_policys_delays() -> None:
    assert delay_of(verdict(OSError("gone"), attempt=1)) == timedelta(seconds=1)
    assert delay_of(verdict(OSError("gone"), attempt=2)) == timedelta(seconds=10)


def test_an_error_of_the_last_attempt_exhausts_the_job_and_tells_its_story() -> None:
    outcome = verdict(ValueError("no such order"), attempt=3)
    assert reason_of(outcome) is DeadReason.EXHAUSTED
    assert isinstance(outcome, Dead)
    assert (outcome.failure.type, outcome.failure.text) == ("ValueError", "no such order")


def test_an_attempt_beyond_the_budget_is_not_run_once_more() -> None:
    assert reason_of(verdict(ValueError(), attempt=1_000_000)) is DeadReason.EXHAUSTED


@pytest.mark.parametrize("error", [JobTimeout("too slow"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_whatever_ends_a_handler_counts_as_a_failed_attempt(error: BaseException) -> None:
    assert isinstance(verdict(error), Retried)
    assert reason_of(verdict(error, attempt=3)) is DeadReason.EXHAUSTED


def test_a_crash_is_retried_and_named_as_such_in_the_end() -> None:
    assert isinstance(verdict(JobCrashed("killed by SIGKILL")), Retried)
    assert reason_of(verdict(JobCrashed("killed by SIGKILL"), attempt=3)) is DeadReason.CRASHED


def test_an_error_with_its_own_delay_waits_that_long_on_every_attempt() -> None:
    assert delay_of(verdict(ConnectionResetError())) == timedelta(seconds=7)
    assert delay_of(verdict(ConnectionResetError(), attempt=2)) == timedelta(seconds=7)


def test_an_error_the_policy_gives_up_on_is_dead_on_the_first_attempt() -> None:
    assert reason_of(verdict(PermissionError("never"))) is DeadReason.REJECTED


@pytest.mark.parametrize("error", [Reject("no such address"), SchemaError("raised by the handler itself")])
def test_a_rejection_is_dead_on_the_first_attempt(error: Exception) -> None:
    assert reason_of(verdict(error)) is DeadReason.REJECTED


def test_the_handlers_own_delay_goes_before_the_policys() -> None:
    assert delay_of(verdict(Retry(after=timedelta(minutes=3)))) == timedelta(minutes=3)
    assert delay_of(verdict(Retry(), attempt=2)) == timedelta(seconds=10)


def test_a_handlers_retry_costs_an_attempt_like_any_other() -> None:
    assert reason_of(verdict(Retry(after=timedelta(seconds=1)), attempt=3)) is DeadReason.EXHAUSTED


def test_a_snooze_costs_nothing_on_any_attempt() -> None:
    assert verdict(Snooze("closed until nine", after=timedelta(hours=8)), attempt=3) == Snoozed(
        timedelta(hours=8), "closed until nine"
    )


def test_a_job_snoozes_up_to_its_maximum_age_and_not_beyond() -> None:
    snooze = Snooze(after=timedelta(days=1))
    assert isinstance(verdict(snooze, age=POLICY.max_age - timedelta(days=1)), Snoozed)
    assert reason_of(verdict(snooze, age=POLICY.max_age - timedelta(hours=23))) is DeadReason.TOO_OLD


def test_a_snooze_beyond_all_time_is_dead_instead_of_an_overflow() -> None:
    assert reason_of(verdict(Snooze(after=timedelta.max))) is DeadReason.TOO_OLD


@pytest.mark.parametrize("signal", [Retry, Snooze])
def test_a_signal_with_a_bare_number_fails_in_the_handler_that_raises_it(signal: type[Retry] | type[Snooze]) -> None:
    with pytest.raises(UsageError, match="after is 30; it takes a timedelta"):
        signal(after=30)  # type: ignore[arg-type]  # the mistake this is about
