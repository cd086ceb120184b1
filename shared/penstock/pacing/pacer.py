"""Paces calls to many destinations: each has its circuit breaker and its rate, and the log hears when calls wait."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from penstock.pacing.circuit_breaker import CircuitBreaker, Judge, Terms
from penstock.pacing.lines import Busy, whole_seconds
from penstock.pacing.rate_limits import Budgets, written

#: Breakers that are kept before those are looked for that have nothing to remember.
_MANY = 10_000

#: A line is over when nobody has waited in it for so long (seconds): limits that are just reached make no log lines.
_QUIET = 10.0

_log = logging.getLogger("penstock.pacing")


class Pacer:
    """Lets *calls* (their name in the log) to each destination pass by its *terms*, within *budgets*. For the tasks of
    one loop."""

    def __init__(
        self,
        calls: str,
        terms: Callable[[str], Terms],
        judge: Judge,
        budgets: Budgets,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._calls = calls
        self._terms = terms
        self._judge = judge
        self._budgets = budgets
        self._now = now
        self._breakers: dict[str, CircuitBreaker] = {}
        self._most = _MANY
        self._waiting: dict[str, float] = {}  # until when calls are known to wait, by destination

    @asynccontextmanager
    async def passing(self, name: str, *, returning: bool) -> AsyncIterator[None]:
        """The one call of the block to *name*, whose end is judged. Raises ``Busy`` when there must be none now, and in
        place of what ``DEFERS`` says; ``StoreUnavailable`` as the budgets do. *returning*: it has waited before."""
        breaker = self._breaker(name)
        try:
            with breaker.passing(returning=returning):
                if breaker.terms.rate is not None:
                    await self._within(breaker.terms.rate, name, returning=returning)
                self._passed(name)
                yield
        except Busy as error:
            self._put_off(name, error)
            raise

    async def _within(self, rate: float, name: str, *, returning: bool) -> None:
        wait = await self._budgets.ask(name, rate, returning=returning)
        if wait > 0:
            raise Busy(f"{name} gets no more than {written(rate)}", after=whole_seconds(wait))

    def _breaker(self, name: str) -> CircuitBreaker:
        breaker = self._breakers.get(name)
        if breaker is None:
            if len(self._breakers) >= self._most:
                self._forget()
            breaker = self._breakers[name] = CircuitBreaker(name, self._terms(name), self._judge, self._now)
        return breaker

    def _forget(self) -> None:
        self._breakers = {name: breaker for name, breaker in self._breakers.items() if not breaker.idle}
        self._most = max(_MANY, 2 * len(self._breakers))
        now = self._now()
        self._waiting = {name: until for name, until in self._waiting.items() if until + _QUIET > now}

    def _put_off(self, name: str, error: Busy) -> None:
        if name not in self._waiting:
            _log.info("%s to %s wait in line: %s", self._calls, name, error)
        until = self._now() + error.after.total_seconds()
        self._waiting[name] = max(until, self._waiting.get(name, until))

    def _passed(self, name: str) -> None:
        until = self._waiting.get(name)
        if until is not None and until + _QUIET < self._now():
            del self._waiting[name]
            _log.info("%s to %s do not wait in line any more", self._calls, name)
