"""From a schedule and an instant to the job that is published for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any  # a job's arguments are any JSON

import orjson

from penstock import headers as h
from penstock.job import JobKind, NewJob
from penstock.schedules.model import Overlap, Schedule, tick_id
from penstock.schedules.rendering import render


def tick(schedule: Schedule, instant: int) -> NewJob[dict[str, Any]]:
    """The job of *schedule* for *instant*, with the id that every copy of this tick has.

    Not to run after *expires* from the instant, and later by the instant's own share of the jitter.
    """
    expires = None if schedule.expires is None else datetime.fromtimestamp(instant, UTC) + schedule.expires
    return replace(asked_for(schedule, instant), delay=_jitter(schedule, instant) or None, expires=expires)


def asked_for(schedule: Schedule, instant: int) -> NewJob[dict[str, Any]]:
    """The same job for somebody who wants it now: neither delayed nor expired."""
    return NewJob(JobKind(schedule.kind, dict), render(schedule, instant), id=tick_id(schedule.name, instant))


def tick_headers(schedule: Schedule, overlap: Overlap | None = None) -> dict[str, Any]:
    """What a tick's message says beyond any other job's; *overlap* in place of the schedule's own."""
    kept = schedule.overlap if overlap is None else overlap
    return {h.SCHEDULE: schedule.name, **({} if kept is Overlap.ALLOW else {h.OVERLAP: kept.value})}


def _jitter(schedule: Schedule, instant: int) -> timedelta:
    """A share of the schedule's jitter in whole seconds, drawn from name and instant: the same for every copy."""
    if not schedule.jitter:
        return timedelta()
    most = round(schedule.jitter.total_seconds())
    draw = int.from_bytes(blake2b(orjson.dumps([schedule.name, instant]), digest_size=8).digest())
    return timedelta(seconds=draw % (most + 1))
