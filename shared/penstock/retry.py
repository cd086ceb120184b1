"""How often and when a failed job comes back: a policy of the consumer, never of the message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from penstock.errors import ConfigError

_JITTER_FROM = timedelta(seconds=10)
_MAX_DELAY = timedelta(seconds=2**24 - 1)
_MAX_FACTOR = 1000


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with a bounded number of attempts: by default four, after 1 s, 10 s and 100 s.

    The delay after attempt *n* is ``first × factor^(n-1)``, at most *cap*, plus up to *jitter* (a share of it) when it
    is 10 s or more. *give_up_on* names exceptions that dead-letter at once; *delays* gives others their own delay.
    *max_age* bounds snoozing: a job older than that is dead-lettered instead. Raises ``ConfigError``.
    """

    max_attempts: int = 4
    first: timedelta = timedelta(seconds=1)
    factor: float = 10.0
    cap: timedelta = timedelta(hours=1)
    jitter: float = 0.1
    give_up_on: tuple[type[BaseException], ...] = ()
    delays: Mapping[type[BaseException], timedelta] = field(default_factory=dict)
    max_age: timedelta = timedelta(days=7)

    def __post_init__(self) -> None:
        problems = [text for wrong, text in self._checks() if wrong]
        if problems:
            raise ConfigError(*problems)

    def _checks(self) -> list[tuple[bool, str]]:
        every = (self.first, self.cap, *self.delays.values())
        return [
            (self.max_attempts < 1, f"max_attempts is {self.max_attempts}; it counts every run, so at least 1"),
            (not 1 <= self.factor <= _MAX_FACTOR, f"factor is {self.factor}; from 1 to {_MAX_FACTOR}"),
            (not 0 <= self.jitter <= 1, f"jitter is {self.jitter}; a share from 0 to 1"),
            (any(not timedelta() < d <= _MAX_DELAY for d in every), "delays are above 0 and at most 194 days"),
        ]

    @property
    def horizon(self) -> timedelta:
        """The longest a job may take from its first run to its last, run times and ``Retry(after=…)`` left out."""
        longest = [max((self.delay_after(n, roll=1.0), *self.delays.values())) for n in self._attempts_to_tell_apart]
        beyond = self.max_attempts - 1 - len(longest)
        return self.max_age + sum(longest, timedelta()) + (beyond * longest[-1] if beyond > 0 else timedelta())

    @property
    def _attempts_to_tell_apart(self) -> range:
        """Attempts that may each have their own delay; from the 65th on it is the same (see ``delay_after``)."""
        return range(1, min(self.max_attempts, 66))

    def delay_after(self, attempt: int, error: BaseException | None = None, roll: float = 0.0) -> timedelta:
        """The wait after failed *attempt* (from 1); *roll* in [0, 1) is the random part of the jitter."""
        for kind, delay in self.delays.items():
            if isinstance(error, kind):
                return delay
        # The exponent is bounded because a float power overflows long before a job has that many attempts.
        seconds = min(self.first.total_seconds() * self.factor ** min(attempt - 1, 64), self.cap.total_seconds())
        delay = timedelta(seconds=seconds)
        return delay + delay * (self.jitter * roll) if delay >= _JITTER_FROM else delay
