"""The domains that mails go to: each has its gate and its budget, and the log hears of it when mails begin to wait."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from services.mailer.gates import Gate, Terms, Verdict
from services.mailer.limits import Limits
from services.mailer.lines import whole_seconds
from services.mailer.ports import Budgets, Busy, NotNow, Refused, TooMuch

#: Gates that are kept before those are looked for that have nothing to remember.
_MANY = 10_000

#: A line is over when nobody has waited in it for so long (seconds): limits that are just reached make no log lines.
_QUIET = 10.0

_log = logging.getLogger("services.mailer")


@dataclass(frozen=True, slots=True)
class Rules:
    """What mails to each domain are held to. *terms*: those of a domain of which the limits say nothing."""

    rates: Limits[float]
    at_once: Limits[int]
    terms: Terms

    def terms_of(self, domain: str) -> Terms:
        """The terms of the gate before *domain*."""
        rate = self.rates.of(domain)
        return replace(self.terms, at_once=self.at_once.of(domain), spacing=1 / rate if rate else 0.0)


class Domains:
    """Lets mails to *domains* pass by *rules*. For the tasks of one loop."""

    def __init__(self, rules: Rules, budgets: Budgets, now: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._budgets = budgets
        self._now = now
        self._gates: dict[str, Gate] = {}
        self._most = _MANY
        self._waiting: dict[str, float] = {}  # until when mails are known to wait, by domain

    @asynccontextmanager
    async def passing(self, domain: str, *, returning: bool) -> AsyncIterator[None]:
        """The one mail of the block, whose end is judged. Raises ``Busy`` when none must go now, and in place of
        ``TooMuch``. *returning*: the mail has waited before."""
        domain = domain.lower()
        try:
            with self._gate(domain).passing(returning=returning):
                await self._within_the_rate(domain, returning=returning)
                self._passed(domain)
                yield
        except Busy as error:
            self._put_off(domain, error)
            raise

    async def _within_the_rate(self, domain: str, *, returning: bool) -> None:
        rate = self._rules.rates.of(domain)
        if rate is None:
            return
        wait = await self._budgets.ask(domain, rate, returning=returning)
        if wait > 0:
            raise Busy(f"{domain} gets no more than {_written(rate)}", whole_seconds(wait))

    def _gate(self, domain: str) -> Gate:
        gate = self._gates.get(domain)
        if gate is None:
            if len(self._gates) >= self._most:
                self._forget()
            gate = self._gates[domain] = Gate(domain, self._rules.terms_of(domain), judge, self._now)
        return gate

    def _forget(self) -> None:
        self._gates = {domain: gate for domain, gate in self._gates.items() if not gate.idle}
        self._most = max(_MANY, 2 * len(self._gates))
        now = self._now()
        self._waiting = {domain: until for domain, until in self._waiting.items() if until + _QUIET > now}

    def _put_off(self, domain: str, error: Busy) -> None:
        if domain not in self._waiting:
            _log.info("mails to %s wait in line: %s", domain, error)
        until = self._now() + error.after.total_seconds()
        self._waiting[domain] = max(until, self._waiting.get(domain, until))

    def _passed(self, domain: str) -> None:
        until = self._waiting.get(domain)
        if until is not None and until + _QUIET < self._now():
            del self._waiting[domain]
            _log.info("mails to %s do not wait in line any more", domain)


def judge(error: BaseException) -> Verdict:
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


def _written(rate: float) -> str:
    """*rate* as it was written in the settings, or the same in a smaller unit."""
    units = {"second": 1, "minute": 60, "hour": 3600}
    unit = next((unit for unit, size in units.items() if round(rate * size, 6).is_integer()), "hour")
    return f"{rate * units[unit]:g} a {unit}"
