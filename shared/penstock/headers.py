"""The names of Penstock's message headers, and readers that clamp whatever came from outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # header values are whatever AMQP carried

PREFIX = "penstock-"

ATTEMPT = "penstock-attempt"
COPY = "penstock-copy"
EXPIRES = "penstock-expires"
DUE = "penstock-due"
PUBLISHED = "penstock-published"
ORIGIN = "penstock-origin"
SEQ = "penstock-seq"
HISTORY = "penstock-history"
#: The schedule whose tick a job is, and what becomes of it while its predecessor has not ended.
SCHEDULE = "penstock-schedule"
OVERLAP = "penstock-overlap"

QUEUE = "penstock-queue"
REASON = "penstock-reason"
ERROR_TYPE = "penstock-error-type"
ERROR = "penstock-error"
TRACEBACK = "penstock-traceback"
DIED = "penstock-died"
WORKER = "penstock-worker"
#: That a store remembers the job, so that it runs once: for as long as the store remembers.
ONCE = "penstock-once"

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

#: How often the job was replayed from the dead letters: a job that always dies again is not replayed for ever.
REPLAYS = "penstock-replays"

#: Not a header but an argument of a worker's consumers: how many jobs it works on at once.
SLOTS = "penstock-slots"

#: What only a dead letter carries; stripped when it is replayed.
STORY = frozenset({QUEUE, REASON, ERROR_TYPE, ERROR, TRACEBACK, DIED, WORKER, ONCE})

#: What a copy needs to run and to be told apart: kept whatever else must go to make room.
NEEDED = frozenset(
    {ATTEMPT, COPY, EXPIRES, DUE, PUBLISHED, ORIGIN, SEQ, TRACEPARENT, SCHEDULE, OVERLAP, REPLAYS}
) | STORY - {TRACEBACK}

MAX_ATTEMPT = 1_000_000
MAX_MS = 253_402_300_799_999  # the last millisecond of the year 9999


def attempt_of(headers: Mapping[str, Any]) -> int:
    """The attempt to be made, from 1; anything that is not a whole number in range counts as 1."""
    return _whole(headers.get(ATTEMPT), 1, MAX_ATTEMPT, default=1)


def copy_of(headers: Mapping[str, Any]) -> int:
    """How often the job was republished, from 0; anything that is not a whole number in range counts as 0."""
    return _whole(headers.get(COPY), 0, MAX_ATTEMPT, default=0)


def schedule_of(headers: Mapping[str, Any]) -> str | None:
    """The schedule that the job is a tick of, as its message says; None where it says nothing that can be a name."""
    name = headers.get(SCHEDULE)
    return name if isinstance(name, str) else None


def replays_of(headers: Mapping[str, Any]) -> int:
    """How often the job was replayed, from 0; anything that is not a whole number in range counts as 0."""
    return _whole(headers.get(REPLAYS), 0, MAX_ATTEMPT, default=0)


def ms_of(headers: Mapping[str, Any], name: str) -> int | None:
    """An instant in milliseconds since 1970 UTC, or None when missing or not one."""
    value = headers.get(name)
    if type(value) is not int or value < 0:
        return None
    return min(value, MAX_MS)


def text_of(headers: Mapping[str, Any], name: str) -> str:
    """A text header, or the empty string when missing or of another type."""
    value = headers.get(name)
    return value if isinstance(value, str) else ""


def _whole(value: object, low: int, high: int, default: int) -> int:
    if type(value) is not int:
        return default
    return min(max(value, low), high)
