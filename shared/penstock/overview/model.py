"""What is known of queues, delay levels and workers at one moment, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that *alert* wakes a person for; not *firing*: it has not lasted long enough yet."""

    alert: str
    words: str
    firing: bool = True


@dataclass(frozen=True, slots=True)
class Age:
    """How long the oldest ready job has waited (seconds), reckoned from what was published since; *beyond*: or more."""

    seconds: float
    beyond: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many, of the last minutes (as the broker tells) or since the workers started (as they do)."""

    count: int
    of: int

    @property
    def value(self) -> float | None:
        """From 0 to 1; None where there was nothing."""
        return min(1.0, self.count / self.of) if self.of else None


@dataclass(frozen=True, slots=True)
class QueueState:
    """A work queue and its dead letters. Rates are per second; *stuck*: dead letters that do not arrive."""

    name: str
    ready: int = 0
    running: int = 0
    stuck: int = 0
    dead: int = 0
    consumers: int = 0
    #: Published to it and answered; None where the broker keeps no statistics.
    rate_in: float | None = None
    rate_out: float | None = None
    oldest: Age | None = None
    #: Deliveries that ended as dead letters.
    died: Share | None = None
    #: Dead letters that came of late, and jobs that more wait than then: see ``thresholds`` for the time.
    dead_new: int = 0
    grew: int = 0
    #: Attempts that failed, by kind, as the workers' own metrics tell.
    failed: Mapping[str, Share] = field(default_factory=dict)
    #: Whether what is so now has been for as long as its rule says: something ready, something stuck, ready jobs that
    #: nobody took, a backlog that grows.
    ready_lasts: bool = False
    stuck_lasts: bool = False
    silence_lasts: bool = False
    growth_lasts: bool = False

    @property
    def jobs(self) -> int:
        """Everything in it, dead letters too: what makes it worth a look."""
        return self.ready + self.running + self.stuck + self.dead


@dataclass(frozen=True, slots=True)
class Level:
    """A delay level: *wait* as its name says, messages waiting, and dead letters that do not move on."""

    name: str
    wait: str
    waiting: int
    stuck: int = 0
    stuck_lasts: bool = False


@dataclass(frozen=True, slots=True)
class Broker:
    """The broker as a whole; *nodes* is None where the login may not see them."""

    version: str
    nodes: int | None = None
    troubles: Sequence[Trouble] = ()


@dataclass(frozen=True, slots=True)
class Processes:
    """What the targets of ``PENSTOCK_METRICS_TARGETS`` said: how many answered, who did not and why, and the sums."""

    asked: int = 0
    silent: Mapping[str, str] = field(default_factory=dict)
    #: Attempts by queue and kind.
    failed: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)
    troubles: Sequence[Trouble] = ()


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything on one screen. *queues*: those worth a look first; *quiet*: how many more were not looked into."""

    broker: Broker
    queues: Sequence[QueueState]
    levels: Sequence[Level]
    unrouted: int
    quiet: int = 0
    processes: Processes = field(default_factory=Processes)


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A process that consumes work queues, as its connections tell."""

    name: str
    host: str
    pid: int | None
    queues: Sequence[str]
    #: How many jobs it works on at once; None where its consumers do not say, as those of others.
    slots: int | None
    prefetch: int
    running: int
    #: Milliseconds since 1970 UTC.
    since: int
    version: str | None
    states: Sequence[str]
    user: str
