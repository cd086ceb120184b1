"""The hosts that are asked: what each is held to, and what the end of a request says of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from penstock.pacing.circuit_breaker import Terms, Verdict
from penstock.pacing.pacer import Pacer
from penstock.pacing.rate_limits import OwnBudgets
from services.sync.ports import NotNow, Refused


def hosts(terms: Terms, rates: Mapping[str, float], now: Callable[[], float] = time.monotonic) -> Pacer:
    """Lets requests to each host pass by *terms*, at the rate of *rates* where it has one; see ``Pacer``."""
    return Pacer("requests", lambda host: replace(terms, rate=rates.get(host, terms.rate)), judge, OwnBudgets(now), now)


def judge(error: BaseException) -> Verdict | timedelta:
    """What the end of a request says of its host."""
    match error:
        case NotNow(after=timedelta() as after):
            return after
        case Refused() | NotNow(failed=False):
            return Verdict.WORKS
        case NotNow():
            return Verdict.FAILED
        case _:
            return Verdict.NOTHING
