"""A mailer as it is put together, with what a test wants to be different."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path

from penstock import Job
from penstock.pacing.circuit_breaker import Terms
from penstock.pacing.pacer import Pacer
from penstock.pacing.rate_limits import Budgets, OwnBudgets
from penstock_jobs.email import Attachment, SendEmail
from services.mailer.attachments import Attachments
from services.mailer.domains import Rules, domains
from services.mailer.handlers import Mailer
from services.mailer.limits import numbers, rates
from services.mailer.ports import Post
from services.mailer.templates import Templates

SENDER = "shop@penstock.example"
ADA = "ada@example.org"
NOWHERE = Path("/nonexistent")

#: Attachments in one mail of a test (bytes).
MOST = 100_000


def a_pause(times: int) -> timedelta:
    """10 s, then twice as long each time."""
    return timedelta(seconds=10 * 2 ** (times - 1))


def some_domains(
    throttle: str = "",
    at_once: str = "",
    *,
    slots: int = 4,
    failures: int = 3,
    budgets: Budgets | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Pacer:
    """Domains that are held to these limits."""
    rules = Rules(rates(throttle), numbers(at_once), Terms(slots, failures, a_pause, relapses=True))
    return domains(rules, budgets or OwnBudgets(now), now)


def a_mailer(post: Post, files: Path = NOWHERE, domains: Pacer | None = None) -> Mailer:
    """A mailer with files in *files* and, unless *domains* say otherwise, without limits."""
    return Mailer(post, Templates(), Attachments(files, MOST), domains or some_domains(), SENDER)


def a_job(
    job_id: str = "1", *attachments: Attachment, to: str = ADA, copy: int = 0, correlation_id: str | None = None
) -> Job[SendEmail]:
    """A mail that welcomes."""
    args = SendEmail(to=to, template="welcome", values={"name": "Ada"}, attachments=attachments)
    return Job(job_id, "email.send", args, copy=copy, correlation_id=correlation_id)


def read_back(mail: bytes) -> EmailMessage:
    """*mail* as its reader has it."""
    found = message_from_bytes(mail, policy=policy.default)
    assert isinstance(found, EmailMessage)
    return found
