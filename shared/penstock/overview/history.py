"""What the samples that the management API keeps say about the last minutes: pure reckoning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any  # the management API's JSON

from penstock.overview.model import Age

Json = Mapping[str, Any]

#: How far back counts of messages are looked at, and publishes and acks, to reckon an age; and the steps (seconds). The
#: broker's counters are told as they were at the last whole step.
LENGTHS, LENGTHS_STEP = 600, 60
#: How far back for queues that hold much, to see whether they grow: it costs the broker more than all the rest.
LONG = 1_800
RATES, RATES_STEP = 600, 10

#: Instant (ms) and value.
Sample = tuple[int, float]


def samples(entry: Json, name: str) -> Sequence[Sample]:
    """The samples of *name* in a queue or its ``message_stats``, the newest first; none where nothing is kept."""
    found = (entry.get(f"{name}_details") or {}).get("samples") or ()
    return sorted(((sample["timestamp"], sample["sample"]) for sample in found), reverse=True)


def lasted(entry: Json, span: timedelta, now_ms: int, holds: Callable[[float, float, float], bool]) -> bool:
    """Whether *holds* (all messages, ready, unacked) was true in every sample since *span* ago."""
    names = ("messages", "messages_ready", "messages_unacknowledged")
    columns = [dict(samples(entry, name)) for name in names]
    instants = sorted(set(columns[0]).intersection(*columns[1:]), reverse=True)
    return all(holds(*(column[at] for column in columns)) for at in _since(instants, span, now_ms)) and bool(instants)


def increase(entry: Json, name: str, span: timedelta, now_ms: int) -> int:
    """By how much the counter *name* of ``message_stats`` grew within *span*."""
    stats = entry.get("message_stats") or {}
    return max(0, int(stats.get(name, 0) - _before(samples(stats, name), now_ms - _ms(span))))


def growth(entry: Json, name: str, count: int, span: timedelta, now_ms: int) -> int:
    """How many more than the least within *span* the messages *name* are, *count* of them now."""
    kept = dict(samples(entry, name))
    values = [kept[at] for at in _since(sorted(kept, reverse=True), span, now_ms)]
    return count - int(min(values, default=count))


def grows(entry: Json, name: str, least: float, span: timedelta, now_ms: int) -> bool:
    """Whether the messages *name* were more by *least* than *span* before, at every sample within *span*."""
    kept = samples(entry, name)
    recent = [(at, value) for at, value in kept if at >= now_ms - _ms(span)]
    return bool(recent) and all(value - _before(kept, at - _ms(span)) > least for at, value in recent)


def _since(instants: Sequence[int], span: timedelta, now_ms: int) -> Sequence[int]:
    """Those of *instants* (the newest first) within *span*, and the last one before it."""
    kept = [at for at in instants if at > now_ms - _ms(span)]
    return instants[: len(kept) + 1]


def _before(kept: Sequence[Sample], at_ms: int) -> float:
    """The value at *at_ms*; what is older than the first sample began with nothing."""
    return next((value for at, value in kept if at <= at_ms), 0.0)


def _ms(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


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
