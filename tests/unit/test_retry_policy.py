"""Backoff: bounded, growing, jittered only where a share of a second shows, and refused when it cannot be meant."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.retry import RetryPolicy

TEN = timedelta(seconds=10)

seconds = st.timedeltas(timedelta(milliseconds=1), timedelta(days=30))
policies = st.builds(
    RetryPolicy,
    first=seconds,
    cap=seconds,
    factor=st.floats(1, 1000),
    jitter=st.floats(0, 1),
)
attempts = st.integers(1, 1_000_000)
rolls = st.floats(0, 1, exclude_max=True)


def test_the_default_is_four_attempts_after_1_10_and_100_seconds() -> None:
    policy = RetryPolicy()
    waits = [policy.delay_after(attempt).total_seconds() for attempt in range(1, policy.max_attempts)]
    assert waits == [1, 10, 100]


@given(policies, attempts, rolls)
def test_a_delay_is_positive_and_never_above_the_cap_and_its_jitter(
    policy: RetryPolicy, attempt: int, roll: float
) -> None:
    delay = policy.delay_after(attempt, roll=roll)
    assert timedelta() < delay <= policy.cap * (1 + policy.jitter) + timedelta(microseconds=1)


@given(policies, attempts)
def test_a_later_attempt_never_waits_less(policy: RetryPolicy, attempt: int) -> None:
    assert policy.delay_after(attempt) <= policy.delay_after(attempt + 1)


@given(policies, attempts, rolls)
@example(RetryPolicy(first=timedelta(seconds=9), jitter=1.0), 1, 0.9)
def test_jitter_adds_at_most_its_share_and_only_from_ten_seconds(
    policy: RetryPolicy, attempt: int, roll: float
) -> None:
    plain, jittered = policy.delay_after(attempt), policy.delay_after(attempt, roll=roll)
    if plain < TEN:
        assert jittered == plain
    else:
        assert plain <= jittered <= plain * (1 + policy.jitter) + timedelta(microseconds=1)


def test_jitter_spreads_what_waits_ten_seconds_or_more() -> None:
    policy = RetryPolicy(first=TEN, jitter=0.5)
    assert [policy.delay_after(1, roll=roll).total_seconds() for roll in (0.0, 0.5, 0.99)] == [10, 12.5, 14.95]


@given(attempts, rolls)
def test_an_exceptions_own_delay_is_neither_grown_nor_jittered(attempt: int, roll: float) -> None:
    policy = RetryPolicy(delays={OSError: timedelta(minutes=5)})
    assert policy.delay_after(attempt, TimeoutError(), roll) == timedelta(minutes=5)


def test_every_problem_of_a_policy_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        RetryPolicy(max_attempts=0, factor=0.5, jitter=1.5, first=timedelta())
    assert [problem.split()[0] for problem in refused.value.problems] == ["max_attempts", "factor", "jitter", "delays"]


@pytest.mark.parametrize("delay", [timedelta(seconds=-1), timedelta(), timedelta(days=195)])
def test_a_delay_the_cascade_cannot_hold_is_refused(delay: timedelta) -> None:
    with pytest.raises(ConfigError, match="at most 194 days"):
        RetryPolicy(delays={OSError: delay})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_factor_or_jitter_that_is_no_number_is_refused(number: float) -> None:
    with pytest.raises(ConfigError):
        RetryPolicy(factor=number)
    with pytest.raises(ConfigError):
        RetryPolicy(jitter=number)
