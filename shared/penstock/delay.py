"""The delay cascade: how long a message waits is spelled in its routing key, one binary digit per level queue.

Level *n* is a queue whose messages expire after 2^n seconds. The key is the delay in binary, most significant bit
first, then the target: ``0.….1.0.1.q.jobs.email`` (that queue) or ``0.….1.0.1.k.email.send`` (every queue bound to
that kind). The entry exchange sends a message to the level of its highest set bit; the exchange behind each level
sends it on to the next set bit below, or to delivery when there is none. A message thus waits in one queue per *set*
bit, each queue is first in first out in expiry, and the waits add up to the delay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Literal, NamedTuple

from penstock.errors import UsageError
from penstock.topology.model import Binding, Exchange, Queue, Topology
from penstock.topology.names import DELAY, DELIVER, UNROUTED

LEVELS = 24
MAX_SECONDS = 2**LEVELS - 1

#: The longest delay: 194 days.
MAX_DELAY = timedelta(seconds=MAX_SECONDS)

#: Deliveries after which the broker gives a message up, on queues where it never should. Without an explicit limit a
#: peek reorders a queue on 3.10 and, at the 21st, deletes the message on 4.x; -1 drops at the first requeue up to 3.13.
NO_LIMIT = 1_000_000

#: What comes before the target in a delivery binding: any delay at all.
ANY_DELAY = "*." * LEVELS

_KEY = re.compile(rf"(?:[01]\.){{{LEVELS}}}([qk])\.(.+)", re.DOTALL)
_SECOND = timedelta(seconds=1)


class Target(NamedTuple):
    """Where a delayed message goes when due: to one queue, or to every queue bound to a kind."""

    by: Literal["queue", "kind"]
    name: str


def whole_seconds(delay: timedelta) -> int:
    """Round *delay* to the nearest whole second (halves up), at least 1.

    Raises ``UsageError`` (a ``ValueError``) for a negative delay and for one beyond ``MAX_DELAY``.
    """
    if delay < timedelta(0):
        raise UsageError(f"a delay cannot be negative: {delay}")
    if delay >= MAX_DELAY + _SECOND / 2:
        raise UsageError(f"a delay of {delay} is beyond the longest possible, {MAX_SECONDS} s ({MAX_DELAY.days} days)")
    return max(1, (delay + _SECOND / 2) // _SECOND)


def queue_key(seconds: int, queue: str) -> str:
    """The key that brings a message to *queue* alone in *seconds*; 0 is at once (replay).

    Raises ``ValueError`` unless 0 <= *seconds* <= ``MAX_SECONDS``.
    """
    return f"{_bits(seconds)}q.{queue}"


def kind_key(seconds: int, kind: str) -> str:
    """The key that brings a message in *seconds* to every queue that is bound to *kind* by then; 0 is at once.

    Raises ``ValueError`` unless 0 <= *seconds* <= ``MAX_SECONDS``.
    """
    return f"{_bits(seconds)}k.{kind}"


def target_of(key: str) -> Target | None:
    """The target in a key of the cascade, or None when *key* is not one."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    return Target("queue" if match[1] == "q" else "kind", match[2])


def level_queue(level: int) -> str:
    """The name of a level's queue, with its wait in the largest unit that gives a whole: ``jobs.delay.10-17m``."""
    seconds = 2**level
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{level_exchange(level)}-{seconds // size}{unit}"
    return f"{level_exchange(level)}-{seconds}s"


def level_exchange(level: int) -> str:
    """The name of the exchange that messages reach when a level's wait is over."""
    return f"{DELAY}.{level:02}"


def cascade() -> Topology:
    """Entry, levels, and the bindings between them and to ``jobs.deliver``.

    ``jobs.deliver`` and ``jobs.unrouted`` themselves are declared by whoever builds the rest of the topology, before.
    """
    levels = range(LEVELS)
    return Topology(
        # Published to with `mandatory`, so no alternate exchange: with one, a bad key would be confirmed and gone.
        exchanges=(Exchange(DELAY), *(_after(level) for level in levels)),
        queues=tuple(_level(level) for level in levels),
        bindings=(*_entry_bindings(), *(binding for level in levels for binding in _onward_bindings(level))),
    )


def _after(level: int) -> Exchange:
    # Reached by dead-lettering, so with an alternate exchange: 32 unroutable messages would freeze the level for all.
    return Exchange(level_exchange(level), internal=True, arguments={"alternate-exchange": UNROUTED})


def _level(level: int) -> Queue:
    return Queue(
        level_queue(level),
        {
            "x-queue-type": "quorum",
            "x-message-ttl": 1000 * 2**level,
            "x-dead-letter-exchange": level_exchange(level),
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-delivery-limit": NO_LIMIT,
        },
    )


def _entry_bindings() -> Iterator[Binding]:
    """The whole form of a key, by its highest set bit, so that what has another form is returned to its publisher.

    What bindings cannot spell is that the words below the highest set bit are digits: topic permissions say that, and
    a key that is wrong there alone is dead-lettered to ``jobs.unrouted``.
    """
    for target in ("q.*.#", "k.*.#"):
        for level in range(LEVELS):
            key = "0." * (LEVELS - 1 - level) + "1." + "*." * level + target
            yield Binding(DELAY, level_queue(level), key)
        yield Binding(DELAY, DELIVER, "0." * LEVELS + target, to_exchange=True)


def _onward_bindings(level: int) -> Iterator[Binding]:
    """From behind *level* to the next set bit below it, or to delivery when only zeros are left."""
    spent = "*." * (LEVELS - level)
    for lower in range(level):
        yield Binding(level_exchange(level), level_queue(lower), f"{spent}{'0.' * (level - 1 - lower)}1.#")
    yield Binding(level_exchange(level), DELIVER, f"{spent}{'0.' * level}#", to_exchange=True)


def _bits(seconds: int) -> str:
    if not 0 <= seconds <= MAX_SECONDS:
        raise ValueError(f"a delay of {seconds} s is not between 0 and {MAX_SECONDS} s")
    return "".join(f"{digit}." for digit in f"{seconds:0{LEVELS}b}")
