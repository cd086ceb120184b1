"""A pacer: how many at once, whom it leaves alone and for how long, who waits in line, and what the log hears."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from datetime import timedelta

import pytest

from penstock.pacing.circuit_breaker import Terms, Verdict
from penstock.pacing.lines import Busy
from penstock.pacing.pacer import Pacer
from penstock.pacing.rate_limits import OwnBudgets


class Ended(Exception):
    """How a call ended, by what that says of what was called."""

    def __init__(self, says: Verdict | timedelta) -> None:
        self.says = says
        super().__init__("too many")


FAILED, FINE, TOO_MUCH, NOTHING = map(Ended, (Verdict.FAILED, Verdict.WORKS, Verdict.DEFERS, Verdict.NOTHING))
ASKS_FOR_7_S = Ended(timedelta(seconds=7))


def judge(error: BaseException) -> Verdict | timedelta:
    """What the test says that *error* means."""
    return error.says if isinstance(error, Ended) else Verdict.NOTHING


class At:
    """Calls at an instant that the test sets. Of four slots, two may call; a.test is left alone after three failures,
    for 10 s at first, then twice as long."""

    def __init__(
        self, rate: float | None = None, at_once: int | None = 2, *, failures: int = 3, relapses: bool = False
    ) -> None:
        self.now = 1000.0
        terms = Terms(4, failures, lambda times: timedelta(seconds=10 * 2 ** (times - 1)), at_once, rate, relapses)
        clock = lambda: self.now  # noqa: E731
        self.pacer = Pacer("calls", lambda _: terms, judge, OwnBudgets(clock), clock)

    async def call(self, after: float = 0.0, error: BaseException | None = None, *, returning: bool = False) -> None:
        """One call so much later, which ends with *error*. Raises ``Busy``."""
        self.now += after
        with suppress(Ended, asyncio.CancelledError):
            async with self.pacer.passing("a.test", returning=returning):
                if error is not None:
                    raise error

    async def busy(self, after: float = 0.0, error: BaseException | None = None, *, returning: bool = False) -> float:
        """For how long a call so much later is put off."""
        with pytest.raises(Busy) as caught:
            await self.call(after, error, returning=returning)
        return caught.value.after.total_seconds()

    async def under_way(self, stack: AsyncExitStack, count: int = 2) -> None:
        """Let *count* calls be under way until *stack* is closed."""
        for _ in range(count):
            await stack.enter_async_context(self.pacer.passing("a.test", returning=False))


async def test_no_more_are_under_way_than_may_be_and_others_do_not_notice() -> None:
    at = At()
    async with AsyncExitStack() as stack:
        await at.under_way(stack)
        assert await at.busy() == 1
        async with at.pacer.passing("b.test", returning=False):
            pass
    await at.call(2)


async def test_those_that_wait_come_one_by_one_as_fast_as_calls_are_seen_to_take() -> None:
    at = At()
    for _ in range(40):
        async with AsyncExitStack() as stack:
            await at.under_way(stack)
            at.now += 8
    for error in (NOTHING, asyncio.CancelledError()) * 20:
        await at.call(0, error)  # says nothing of how long calls take
    async with AsyncExitStack() as stack:
        await at.under_way(stack)
        waits = [await at.busy() for _ in range(5)]
    assert waits == [4, 8, 12, 16, 20], "8 s each, two at once"


async def test_one_that_hangs_is_known_to_be_slow_before_its_first_call_ends() -> None:
    at = At()
    async with AsyncExitStack() as stack:
        await at.under_way(stack)
        assert await at.busy(20) == 10
        assert await at.busy() == 20


async def test_who_comes_for_the_first_time_stands_behind_those_that_wait() -> None:
    at = At()
    async with AsyncExitStack() as stack:
        await at.under_way(stack)
        assert await at.busy(4) == 2
    assert await at.busy() == 3
    await at.call(returning=True)
    await at.call(3)


async def test_it_is_left_alone_after_failures_one_after_the_other_only() -> None:
    at = At()
    for error in (FAILED, FAILED, None, FAILED, FAILED, FINE, FAILED, NOTHING, FAILED):
        await at.call(0, error)
    await at.call()
    for _ in range(3):
        await at.call(0, FAILED)
    assert await at.busy() == 10


async def test_too_much_shuts_at_once_puts_that_call_off_and_costs_it_nothing() -> None:
    at = At()
    assert await at.busy(0, TOO_MUCH) == 10
    assert await at.busy(4) == 7


async def test_one_that_still_refuses_is_left_alone_for_longer_and_longer() -> None:
    at = At(relapses=True)
    assert await at.busy(0, TOO_MUCH) == 10
    assert await at.busy(10, TOO_MUCH) == 20
    await at.call(20, FAILED)
    assert await at.busy() == 40
    await at.call(40)
    assert await at.busy(10, TOO_MUCH) == 80, "it has not worked for as long as it was left alone"
    await at.call(80)
    assert await at.busy(100, TOO_MUCH) == 10, "it has"


async def test_without_relapses_it_is_forgotten_as_soon_as_it_works() -> None:
    at = At(failures=1)
    await at.call(0, FAILED)
    assert await at.busy(9) == 1
    await at.call(1, FAILED)
    assert await at.busy() == 20
    await at.call(20)
    await at.call(0, FAILED)
    assert await at.busy() == 10


async def test_a_pause_that_was_asked_for_is_kept_and_no_failure() -> None:
    at = At()
    for error in (FAILED, FAILED, ASKS_FOR_7_S):
        await at.call(0, error)
    assert await at.busy(4) == 3
    assert await at.busy(returning=True) == 4, "nobody asks before, and who waits comes one by one"
    for _ in range(2):
        await at.call(3 if at.now == 1004 else 0, FAILED, returning=True)
    await at.call(returning=True)


async def test_one_tries_whether_it_works_again_and_who_is_broken_off_says_nothing() -> None:
    at = At(relapses=True)
    await at.busy(0, TOO_MUCH)
    at.now += 10
    async with at.pacer.passing("a.test", returning=False):
        assert await at.busy() == 10
    await at.call()
    await at.busy(0, TOO_MUCH)
    for error in (asyncio.CancelledError(), NOTHING):
        await at.call(40, error)
    assert await at.busy(0, TOO_MUCH) == 40


async def test_what_was_under_way_when_it_was_shut_neither_opens_nor_keeps_it_shut() -> None:
    at = At(at_once=4)
    async with at.pacer.passing("a.test", returning=False):
        await at.busy(0, TOO_MUCH)
    assert await at.busy(5) == 6
    at = At()
    with suppress(Ended):
        async with at.pacer.passing("a.test", returning=False):
            await at.busy(0, TOO_MUCH)
            raise FAILED
    await at.call(10)


async def test_a_hundred_that_wait_while_it_is_shut_do_not_come_back_at_once() -> None:
    at = At(10)
    await at.busy(0, TOO_MUCH)
    waits = [await at.busy() for _ in range(100)]
    assert waits == sorted(waits)
    assert 11 == waits[0] < waits[-1] >= 20
    assert max(waits.count(wait) for wait in waits) <= 11


async def test_a_rate_holds_and_who_is_over_it_takes_no_place() -> None:
    at = At(1)
    for _ in range(2):
        await at.call()
    assert [await at.busy() for _ in range(3)] == [1, 2, 3]
    await at.call(1, returning=True)


async def test_the_log_has_a_line_for_each_change_and_none_for_a_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "penstock.pacing")
    at = At(0.5)
    await at.call()
    for _ in range(50):
        await at.busy()
    for _ in range(50):
        await at.call(2.1, returning=True)
    await at.call(2)
    assert caplog.messages == ["calls to a.test wait in line: a.test gets no more than 30 a minute"]
    await at.call(20)
    await at.busy(5, TOO_MUCH)
    for _ in range(50):
        await at.busy(0.1)
    await at.call(100)
    assert caplog.messages[1:] == [
        "calls to a.test do not wait in line any more",
        "a.test is left alone for 10 s: too many",
        "calls to a.test wait in line: a.test is left alone: too many",
        "a.test works again",
    ]


async def test_what_was_wrong_with_a_destination_that_nobody_calls_any_more_is_forgotten_in_time() -> None:
    at = At()
    for number in range(25_000):
        at.now += 1
        with suppress(Ended, Busy):
            async with at.pacer.passing(f"{number}.test", returning=False):
                raise FAILED if number % 100 else TOO_MUCH
    assert len(at.pacer._breakers) <= 10_001  # what is forgotten cannot be told from outside


@pytest.mark.parametrize("error", [TOO_MUCH, ASKS_FOR_7_S])
async def test_destinations_are_forgotten_of_which_there_is_nothing_to_remember(error: Ended) -> None:
    at = At()
    with suppress(Busy):
        await at.call(0, error)
    for number in range(25_000):
        async with at.pacer.passing(f"{number}.test", returning=False):
            pass
    assert len(at.pacer._breakers) <= 10_001  # what is forgotten cannot be told from outside
    assert await at.busy() > 0, "it is still left alone"
