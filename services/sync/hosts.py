"""How often a host may be asked, and when it has to be left alone: a rate, a pause it asked for, a circuit breaker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from services.sync.ports import Busy, NotNow, Refused

#: Requests that may come at once after a pause, as seconds of the rate.
_BURST = 1.0

#: The longest a breaker stays open, as a multiple of its first time.
_LONGEST = 16

#: How soon somebody who met a probe comes again.
_PROBE = timedelta(seconds=2)

_log = logging.getLogger("services.sync")


@dataclass(frozen=True, slots=True)
class Terms:
    """How a host is treated: *rate* in requests a second; after so many *failures* one after the other it is left alone
    for *cooldown*, then asked by one, and left alone for twice as long when that fails as well."""

    rate: float
    failures: int
    cooldown: timedelta


class Host:
    """One host, as one process sees it. For the tasks of one loop; *now* gives seconds of a clock that never jumps.

    The breaker is M. Nygard's (Release It!, 2007): closed, open, half-open.
    """

    def __init__(self, name: str, terms: Terms, now: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._terms = terms
        self._now = now
        self._paid = float("-inf")  # until when the requests so far have used the rate up (GCRA)
        self._paused = float("-inf")  # until when it asked to be left alone
        self._failures = 0
        self._open: float | None = None  # until when; None: the breaker is closed
        self._openings = 0
        self._probing = False

    @contextmanager
    def request(self) -> Iterator[None]:
        """The one request of the block, whose end is judged. Raises ``Busy`` when there must be none now."""
        probe = self._admit()
        try:
            yield
        except NotNow as error:
            self._judge(error, probe)
            raise
        except Refused:
            self._worked(probe)
            raise
        else:
            self._worked(probe)
        finally:
            if probe:
                self._probing = False

    def _admit(self) -> bool:
        """Let a request pass, or raise ``Busy``; whether it is the probe of an open breaker."""
        now = self._now()
        if self._open is not None and now < self._open:
            raise self._busy("it failed too often", self._open - now)
        if now < self._paused:
            raise self._busy("it asked for a pause", self._paused - now)
        if self._open is not None and self._probing:
            raise self._busy("another job tries whether it works again", _PROBE.total_seconds())
        wait = self._paid - now - _BURST
        if wait > 0:
            raise self._busy("it is asked as often as it may be", wait)
        self._paid = max(self._paid, now) + 1 / self._terms.rate
        self._probing = self._open is not None
        return self._probing

    def _busy(self, why: str, seconds: float) -> Busy:
        return Busy(f"{self.name} is left alone: {why}", timedelta(seconds=seconds))

    def _judge(self, error: NotNow, probe: bool) -> None:
        if error.after is not None:
            self._paused = max(self._paused, self._now() + error.after.total_seconds())
        if not error.failed:
            self._worked(probe)
            return
        self._failures += 1
        # What began before it opened says nothing new.
        if probe or (self._open is None and self._failures >= self._terms.failures):
            self._break(error)

    def _break(self, error: NotNow) -> None:
        cooldown = self._terms.cooldown * min(2**self._openings, _LONGEST)
        self._open = self._now() + cooldown.total_seconds()
        self._openings += 1
        _log.warning(
            "%s is left alone for %g s after %d failures: %s",
            self.name,
            cooldown.total_seconds(),
            self._failures,
            error,
        )

    def _worked(self, probe: bool) -> None:
        if self._open is not None:
            if not probe:
                return  # as above
            _log.warning("%s works again", self.name)
        self._open, self._openings, self._failures = None, 0, 0


class Hosts:
    """The hosts of all sources, each made when it is first asked for."""

    def __init__(self, terms: Terms, rates: Mapping[str, float]) -> None:
        self._terms = terms
        self._rates = rates
        self._hosts: dict[str, Host] = {}

    def __getitem__(self, name: str) -> Host:
        if name not in self._hosts:
            rate = self._rates.get(name, self._terms.rate)
            self._hosts[name] = Host(name, Terms(rate, self._terms.failures, self._terms.cooldown))
        return self._hosts[name]
