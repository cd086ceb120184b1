"""A domain's gate: how many at once, when it is left alone, who waits in line for how long, and what the log hears."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress

import pytest

from penstock import StoreUnavailable
from services.mailer.domains import Domains
from services.mailer.ports import Busy, NotNow, Refused, TooMuch
from services.mailer.templates import TemplateProblem
from tests.support.mailing import a_job, a_mailer, some_domains

FAILED, GREY, NO = NotNow("451 local error"), NotNow("450 greylisted", own=True), Refused("550 no such user")
TOO_MUCH = TooMuch("421 4.7.0 too many mails")


class At:
    """Mails to one domain at an instant that the test sets. Of four slots, two may send to it; it is left alone after
    three failures, for 10 s at first."""

    def __init__(self, throttle: str = "", at_once: str = "a.test=2") -> None:
        self.now = 1000.0
        self.domains: Domains = some_domains(throttle, at_once, now=lambda: self.now)

    async def mail(self, after: float = 0.0, error: BaseException | None = None, *, returning: bool = False) -> None:
        """One mail so much later, which ends with *error*. Raises ``Busy``."""
        self.now += after
        with suppress(NotNow, Refused, TemplateProblem, asyncio.CancelledError):
            async with self.domains.passing("A.test", returning=returning):
                if error is not None:
                    raise error

    async def busy(self, after: float = 0.0, error: BaseException | None = None, *, returning: bool = False) -> float:
        """For how long a mail so much later is put off."""
        with pytest.raises(Busy) as caught:
            await self.mail(after, error, returning=returning)
        return caught.value.after.total_seconds()

    async def under_way(self, stack: AsyncExitStack, count: int = 2) -> None:
        """Let *count* mails be under way until *stack* is closed."""
        for _ in range(count):
            await stack.enter_async_context(self.domains.passing("a.test", returning=False))


async def test_no_more_are_under_way_than_may_be_and_other_domains_do_not_notice() -> None:
    at = At()
    async with AsyncExitStack() as stack:
        await at.under_way(stack)
        assert await at.busy() == 1
        async with at.domains.passing("b.test", returning=False):
            pass
    await at.mail(2)


async def test_those_that_wait_come_one_by_one_as_fast_as_mails_are_seen_to_take() -> None:
    at = At()
    for _ in range(40):
        async with AsyncExitStack() as stack:
            await at.under_way(stack)
            at.now += 8
    for error in (TemplateProblem("a value is missing"), asyncio.CancelledError()) * 20:
        await at.mail(0, error)  # says nothing of how long mails take
    async with AsyncExitStack() as stack:
        await at.under_way(stack)
        waits = [await at.busy() for _ in range(5)]
    assert waits == [4, 8, 12, 16, 20], "8 s each, two at once"


async def test_a_domain_that_hangs_is_known_to_be_slow_before_its_first_mail_ends() -> None:
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
    await at.mail(returning=True)
    await at.mail(3)


async def test_a_domain_is_left_alone_after_failures_one_after_the_other_only() -> None:
    at = At()
    for error in (FAILED, FAILED, None, FAILED, FAILED, NO, FAILED, FAILED, GREY, FAILED, FAILED):
        await at.mail(0, error)
    await at.mail()
    for _ in range(3):
        await at.mail(0, FAILED)
    assert await at.busy() == 10


async def test_too_much_shuts_at_once_puts_that_mail_off_and_costs_it_nothing() -> None:
    at = At()
    assert await at.busy(0, TOO_MUCH) == 10
    assert await at.busy(4) == 7


async def test_a_domain_that_still_refuses_is_left_alone_for_longer_and_longer() -> None:
    at = At()
    assert await at.busy(0, TOO_MUCH) == 10
    assert await at.busy(10, TOO_MUCH) == 20
    await at.mail(20, FAILED)
    assert await at.busy() == 40
    await at.mail(40)
    assert await at.busy(10, TOO_MUCH) == 80, "it has not worked for as long as it was left alone"
    await at.mail(80)
    assert await at.busy(100, TOO_MUCH) == 10, "it has"


async def test_one_tries_whether_it_works_again_and_who_is_broken_off_says_nothing() -> None:
    at = At()
    await at.busy(0, TOO_MUCH)
    at.now += 10
    async with at.domains.passing("a.test", returning=False):
        assert await at.busy() == 10
    await at.mail()
    await at.busy(0, TOO_MUCH)
    for error in (asyncio.CancelledError(), TemplateProblem("a value is missing")):
        await at.mail(40, error)
    assert await at.busy(0, TOO_MUCH) == 40


async def test_what_was_under_way_when_it_was_shut_neither_opens_nor_keeps_it_shut() -> None:
    at = At(at_once="a.test=4")
    async with at.domains.passing("a.test", returning=False):
        await at.busy(0, TOO_MUCH)
    assert await at.busy(5) == 6
    at = At()
    with suppress(NotNow):
        async with at.domains.passing("a.test", returning=False):
            await at.busy(0, TOO_MUCH)
            raise FAILED
    await at.mail(10)


async def test_a_hundred_that_wait_while_it_is_shut_do_not_come_back_at_once() -> None:
    at = At("a.test=10/s")
    await at.busy(0, TOO_MUCH)
    waits = [await at.busy() for _ in range(100)]
    assert waits == sorted(waits)
    assert 11 == waits[0] < waits[-1] >= 20
    assert max(waits.count(wait) for wait in waits) <= 11


async def test_a_rate_holds_and_who_is_over_it_takes_no_place() -> None:
    at = At("*=1/s")
    for _ in range(2):
        await at.mail()
    assert [await at.busy() for _ in range(3)] == [1, 2, 3]
    await at.mail(1, returning=True)


async def test_a_store_that_is_away_is_for_the_worker_to_wait_for_and_no_failure_of_the_domain() -> None:
    class Away:
        async def ask(self, _domain: str, _rate: float, *, returning: bool) -> float:  # noqa: ARG002
            raise StoreUnavailable("the store is away")

    class Unused:
        async def send(self, _mail: bytes, _sender: str, _recipient: str) -> None:
            raise AssertionError("nothing goes out uncounted")

    mailer = a_mailer(Unused(), domains=some_domains("*=1/s", budgets=Away()))
    for _ in range(10):
        with pytest.raises(StoreUnavailable):
            await mailer.send_email(a_job())


async def test_the_log_has_a_line_for_each_change_and_none_for_a_mail(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "services.mailer")
    at = At("a.test=30/m")
    await at.mail()
    for _ in range(50):
        await at.busy()
    for _ in range(50):
        await at.mail(2.1, returning=True)
    await at.mail(2)
    assert caplog.messages == ["mails to a.test wait in line: a.test gets no more than 30 a minute"]
    await at.mail(20)
    await at.busy(5, TOO_MUCH)
    for _ in range(50):
        await at.busy(0.1)
    await at.mail(100)
    assert caplog.messages[1:] == [
        "mails to a.test do not wait in line any more",
        "a.test is left alone for 10 s: 421 4.7.0 too many mails",
        "mails to a.test wait in line: a.test is left alone: 421 4.7.0 too many mails",
        "a.test takes mails again",
    ]


async def test_domains_are_forgotten_of_which_there_is_nothing_to_remember() -> None:
    at = At()
    await at.busy(0, TOO_MUCH)
    for number in range(25_000):
        async with at.domains.passing(f"{number}.test", returning=False):
            pass
    assert len(at.domains._gates) <= 10_001  # what is forgotten cannot be told from outside
    assert await at.busy() > 0, "it is still left alone"
