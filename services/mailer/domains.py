"""The domains that mails go to: what each is held to, and what the end of a mail says of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from penstock.pacing.circuit_breaker import Terms, Verdict
from penstock.pacing.pacer import Pacer
from penstock.pacing.rate_limits import Budgets
from services.mailer.limits import Limits
from services.mailer.ports import NotNow, Refused, TooMuch


@dataclass(frozen=True, slots=True)
class Rules:
    """What mails to each domain are held to. *terms*: those of a domain of which the limits say nothing."""

    rates: Limits[float]
    at_once: Limits[int]
    terms: Terms

    def terms_of(self, domain: str) -> Terms:
        """The terms of *domain*."""
        return replace(self.terms, at_once=self.at_once.of(domain), rate=self.rates.of(domain))


def domains(rules: Rules, budgets: Budgets, now: Callable[[], float] = time.monotonic) -> Pacer:
    """Lets mails to each domain pass by *rules*; see ``Pacer``."""
    return Pacer("mails", rules.terms_of, judge, budgets, now)


def domain_of(address: str) -> str:
    """The domain of *address*, in lower case: it is the same in any."""
    return address.rpartition("@")[2].lower()


def judge(error: BaseException) -> Verdict | timedelta:
    """What the end of a mail says of its domain."""
    match error:
        case TooMuch():
            return Verdict.DEFERS
        case Refused() | NotNow(own=True):
            return Verdict.WORKS
        case NotNow():
            return Verdict.FAILED
        case _:
            return Verdict.NOTHING
