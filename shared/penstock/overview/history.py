"""What the samples that the management API keeps say about the last minutes: pure reckoning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any  # the management API's JSON

from penstock.overview.model import Age
from penstock.thresholds import BACKLOG_AGE, LASTING, WINDOW

Json = Mapping[str, Any]

#: How far back counts of messages are looked at, and publishes and acks, to reckon an age; and the steps (seconds). The
#: broker's counters are told as they were at the last whole step.
LENGTHS, LENGTHS_STEP = int(LASTING.total_seconds()), 60
RATES, RATES_STEP = int(BACKLOG_AGE.total_seconds()), 10

#: Instant (ms) and value.
Sample = tuple[int, float]


def samples(entry: Json, name: str) -> Sequence[Sample]:
    """The samples of *name* in a queue or its ``message_stats``, the newest first; none where nothing is kept."""
    found = (entry.get(f"{name}_details") or {}).get("samples") or ()
    return sorted(((sample["timestamp"], sample["sample"]) for sample in found), reverse=True)


def lasted(entry: Json, holds: Callable[[float, float, float], bool]) -> bool:
    """Whether *holds* (all messages, ready, unacked) was true in every sample of ``LASTING``; False for a new queue."""
    names = ("messages", "messages_ready", "messages_unacknowledged")
    columns = [dict(samples(entry, name)) for name in names]
    instants = set(columns[0]).intersection(*columns[1:])
    return len(instants) > 1 and all(holds(*(column[at] for column in columns)) for at in instants)


def increase(entry: Json, name: str, now_ms: int) -> int:
    """By how much the counter *name* of ``message_stats`` grew within ``WINDOW``."""
    stats = entry.get("message_stats") or {}
    since = now_ms - WINDOW.total_seconds() * 1000
    before = next((value for at, value in samples(stats, name) if at <= since), 0)
    return max(0, int(stats.get(name, 0) - before))


def growth(entry: Json, messages: int) -> int:
    """By how much *entry* has more messages than it had when ``LASTING`` began."""
    kept = samples(entry, "messages")
    return max(0, messages - round(kept[-1][1])) if kept else 0


def oldest(ready: int, entry: Json, now_ms: int) -> Age | None:
    """How long the first of *ready* jobs has waited: since all but the last *ready* of what was published had been.

    A queue is first in, first out; what comes back (retries, replays) is not counted as published, which makes the age
    an upper bound. None where nothing waits or publishes were not counted, as after a restart of the broker.
    """
    stats = entry.get("message_stats") or {}
    total = stats.get("publish", 0)
    target = total - ready
    kept = samples(stats, "publish")
    if not ready or target < 0 or not kept:
        return None
    later, above = max(now_ms, kept[0][0]), float(total)
    for at, value in kept:
        if value <= target:
            part = (above - target) / (above - value) if above > value else 0.0
            return Age((now_ms - later + part * (later - at)) / 1000)
        later, above = at, value
    return Age((now_ms - kept[-1][0]) / 1000, beyond=True)


def rate(entry: Json, name: str) -> float | None:
    """The present rate of *name*, per second; None where the broker keeps no statistics."""
    stats = entry.get("message_stats")
    if stats is None:
        return 0.0
    return float((stats.get(f"{name}_details") or {}).get("rate", 0.0))
