"""What a team writes down about its broker: queues with their kinds, and who may do what. All else is generated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from penstock.topology.names import RESERVED

DELIVERY_LIMIT = 20

#: Keys are at most 255 bytes and a delayed one starts with 50, so both fit after ``q.jobs.`` and ``k.``.
MAX_NAME = 150
MAX_PATTERN = 200

_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_PATTERN = re.compile(r"([a-z0-9_]+|\*|#)(\.([a-z0-9_]+|\*|#))*")


class Role(StrEnum):
    """What a user is besides a producer of kinds and a worker of queues."""

    SCHEDULER = "scheduler"
    TOPOLOGY = "topology"
    MONITOR = "monitor"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A work queue: the kinds it takes and what may be tuned about it."""

    name: str
    patterns: tuple[str, ...] = ()
    #: Takes every kind that any other queue takes, instead of patterns of its own.
    everything: bool = False
    delivery_limit: int = DELIVERY_LIMIT
    #: How long a delivery may stay unsettled; None is the broker's own setting. Ignored by brokers before 3.12.
    consumer_timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class UserSpec:
    """A login and everything it may do; what is not said here it may not."""

    name: str
    publishes: tuple[str, ...] = ()
    works: tuple[str, ...] = ()
    role: Role | None = None
    #: Publishes without Penstock's library: may not delay by itself, it asks for it with ``penstock-due``.
    foreign: bool = False


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole ``topology.yaml``. ``aliases`` are (former queue name, queue name): delayed keys that still arrive."""

    queues: tuple[QueueSpec, ...]
    users: tuple[UserSpec, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    vhost: str = "/"

    def patterns_of(self, queue: QueueSpec) -> Sequence[str]:
        """The kind patterns bound to *queue*, each once; for one that takes everything, all patterns of the others."""
        if not queue.everything:
            return queue.patterns
        return self.patterns

    @property
    def patterns(self) -> Sequence[str]:
        """Every kind pattern of every queue, each once, in the order written."""
        return tuple(dict.fromkeys(pattern for queue in self.queues for pattern in queue.patterns))


def name_problem(name: str) -> str | None:
    """Say why a work queue cannot be called *name*, or None."""
    if not _NAME.fullmatch(name):
        return f"queue name {name!r} may only have a-z, 0-9, _ and -, in words separated by dots"
    if len(name) > MAX_NAME:
        return f"queue name {name[:40]!r}… is longer than {MAX_NAME} characters"
    if name in RESERVED or name.startswith("delay") or name.endswith(".dead"):
        return f"queue name {name!r} is reserved (so are delay*, *.dead, {', '.join(sorted(RESERVED))})"
    return None


def user_problem(name: str) -> str | None:
    """Say why a user cannot be called *name*, or None. Names are file names too: a directory holds the passwords."""
    if not _USER.fullmatch(name):
        return f"user name {name[:40]!r} may only have letters, digits, _, - and dots, at most 100"
    return None


def pattern_problem(pattern: str) -> str | None:
    """Say why kinds cannot be bound by *pattern*, or None."""
    if not _PATTERN.fullmatch(pattern):
        return f"kind pattern {pattern[:60]!r} must be words of a-z, 0-9 and _, or * or #, separated by dots"
    if len(pattern) > MAX_PATTERN:
        return f"kind pattern {pattern[:40]!r}… is longer than {MAX_PATTERN} characters"
    words = pattern.split(".")
    if not any(word not in "*#" for word in words):
        return (
            f"kind pattern {pattern!r} would make every misspelled kind routable; name at least one word"
            " (a queue that wants everything says `binds: all`)"
        )
    if words.count("#") > 1:
        return f"kind pattern {pattern!r} has more than one #, which newer brokers refuse"
    return None


def overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    """Say whether some key fits both topic patterns, given as their words."""
    if not one or not other:
        return all(word == "#" for word in (*one, *other))
    if one[0] == "#":
        return overlap(one[1:], other) or overlap(one, other[1:])
    if other[0] == "#":
        return overlap(other, one)
    return (one[0] == other[0] or "*" in (one[0], other[0])) and overlap(one[1:], other[1:])
