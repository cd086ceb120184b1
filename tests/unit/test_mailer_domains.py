"""What the end of a mail says of its domain, and what a mailer does about it."""

from __future__ import annotations

import pytest

from penstock import Snooze, StoreUnavailable
from penstock.pacing.circuit_breaker import Verdict
from services.mailer.domains import judge
from services.mailer.ports import NotNow, Refused, TooMuch
from services.mailer.templates import TemplateProblem
from tests.support.mailing import a_job, a_mailer, some_domains


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (TooMuch("421 4.7.0 too many mails"), Verdict.DEFERS),
        (NotNow("451 local error"), Verdict.FAILED),
        (NotNow("450 greylisted", own=True), Verdict.WORKS),
        (Refused("550 no such user"), Verdict.WORKS),
        (TemplateProblem("a value is missing"), Verdict.NOTHING),
        (StoreUnavailable("the store is away"), Verdict.NOTHING),
    ],
)
def test_only_what_the_server_says_of_all_its_mails_is_held_against_a_domain(error: Exception, says: Verdict) -> None:
    assert judge(error) is says


class Post:
    """A server that says *error* of every mail; none: that takes it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.taken = 0

    async def send(self, _mail: bytes, _sender: str, _recipient: str) -> None:
        if self.error is not None:
            raise self.error
        self.taken += 1


async def test_mails_to_a_domain_that_wants_none_wait_in_whatever_case_it_is_written() -> None:
    post = Post(TooMuch("421 4.7.0 too many mails"))
    mailer = a_mailer(post)
    with pytest.raises(Snooze, match=r"a\.test is left alone: 421 4\.7\.0 too many mails"):
        await mailer.send_email(a_job(to="ada@A.Test"))
    post.error = None
    with pytest.raises(Snooze, match=r"a\.test is left alone"):
        await mailer.send_email(a_job(to="grace@a.test"))
    await mailer.send_email(a_job(to="ada@b.test"))
    assert post.taken == 1


async def test_a_domain_that_refuses_again_soon_is_left_alone_for_longer() -> None:
    now = 1000.0
    post = Post()
    mailer = a_mailer(post, domains=some_domains(now=lambda: now))
    for wait in (10, 20, 40):
        post.error = TooMuch("421 4.7.0 too many mails")
        with pytest.raises(Snooze) as caught:
            await mailer.send_email(a_job())
        assert caught.value.after.total_seconds() == wait
        now += wait
        post.error = None
        await mailer.send_email(a_job())


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
