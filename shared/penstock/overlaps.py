"""Ticks of one schedule that must not run beside each other: who has the lane, who waits for it, who is skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any  # header values are whatever AMQP carried

from penstock import headers as h
from penstock.claims import Claim, State
from penstock.errors import MessageError
from penstock.schedules.model import Overlap

#: The longest name of a schedule, in characters: a tick's id has to hold it, and an id 255 bytes.
MAX_NAME = 255


class OverlapRefused(MessageError):
    """A message that asks not to run beside others of its schedule, in a way that cannot be kept."""


@dataclass(frozen=True, slots=True)
class Tick:
    """The schedule that a job is a tick of, and what becomes of it while another tick has not ended."""

    schedule: str
    overlap: Overlap


@dataclass(frozen=True, slots=True)
class Entry:
    """A wish to run by *claim*, which holds its record, as a tick of *schedule*. Spans are milliseconds.

    *patience*: how long nothing may be heard of the tick once it runs, beyond the lease of its claim, before others
    take its place. *wait*: how long its place is kept while it waits.
    """

    claim: Claim
    schedule: str
    overlap: Overlap
    patience: int
    wait: int


class Admission(StrEnum):
    """What a tick that wants to run is answered."""

    #: It has the lane: nobody else of its schedule runs until it has ended.
    RUN = "run"
    #: It is the one that waits; its claim has let go of the record, so that it may ask again.
    WAIT = "wait"
    #: It never runs: its record says ``skipped``.
    SKIP = "skip"
    #: Its claim does not hold its record any more: another run of it has taken over.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Lane:
    """Where the ticks of one schedule stand at one consumer: the job that has it, and the one that waits.

    *until* and *waits_until*: how long each is expected back though nothing is heard of it (ms since 1970 UTC).
    """

    holder: str | None = None
    until: int = 0
    waiting: str | None = None
    waits_until: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What of a job's record counts here."""

    state: State
    token: int
    until: int


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer, and what is to be remembered with it: the *lane*, and the job whose run may not end any more."""

    admission: Admission
    lane: Lane
    fenced: str | None = None


_ENDED = frozenset({State.DONE, State.DEAD, State.SKIPPED})


def tick_of(headers: Mapping[str, Any]) -> Tick | None:
    """The tick whose overlap is to be judged; None for every other job. Raises ``OverlapRefused``."""
    if h.OVERLAP not in headers:
        return None
    try:
        overlap = Overlap(h.text_of(headers, h.OVERLAP))
    except ValueError:
        raise OverlapRefused(f"{h.OVERLAP} is none of {', '.join(Overlap)}") from None
    if overlap is Overlap.ALLOW:
        return None
    name = h.text_of(headers, h.SCHEDULE)
    if not (0 < len(name) <= MAX_NAME and name.isprintable()):
        raise OverlapRefused(
            f"{h.OVERLAP} is {overlap}, but {h.SCHEDULE} is no text of 1 to {MAX_NAME} printable characters"
        )
    return Tick(name, overlap)


def check(headers: Mapping[str, Any], kind: str, *, remembered: bool) -> None:
    """Raise ``OverlapRefused`` for a tick whose overlap cannot be judged: *remembered* says that its handler has a
    store, without which nobody knows what still runs."""
    tick = tick_of(headers)
    if tick is not None and not remembered:
        raise OverlapRefused(
            f"schedule {tick.schedule} says overlap: {tick.overlap}, but the handler of {kind} has no store that knows "
            "what still runs: say once='lease' or once='effect' there, or overlap: allow"
        )


def decide(lane: Lane, standings: Mapping[str, Standing], entry: Entry, now: int) -> Decision:
    """What *entry* is answered at *now* (ms): every store obeys this. *standings*: of the jobs that *lane* names and
    of the entry's own, those that are remembered.

    One has the lane until it has ended; a run that was broken off and a retry that is to come have not. Who is not
    heard of for too long loses it, and its run with it.
    """
    job = entry.claim.job_id
    own = standings.get(job)
    if own is None or own.state is not State.RUNNING or own.token != entry.claim.token:
        return Decision(Admission.LOST, lane)
    left = _left(lane, standings, entry, now)
    fenced = _fenced(lane, left, standings)
    if left.holder in (None, job):
        return Decision(Admission.RUN, replace(left, holder=job, until=now + entry.patience), fenced)
    if entry.overlap is Overlap.BUFFER_ONE and left.waiting in (None, job):
        return Decision(Admission.WAIT, replace(left, waiting=job, waits_until=now + entry.wait), fenced)
    return Decision(Admission.SKIP, left, fenced)


def _left(lane: Lane, standings: Mapping[str, Standing], entry: Entry, now: int) -> Lane:
    """*lane* without those that have ended or are not expected any more; who waits has it next."""
    waiting = _open(lane.waiting, standings)
    if waiting is None or lane.waits_until <= now:
        lane = replace(lane, waiting=None, waits_until=0)
    holder = _open(lane.holder, standings)
    here = lane.holder == entry.claim.job_id  # late or not: nobody has taken its place
    if holder is None or not (here or now < _expected_until(lane, holder, entry.patience)):
        return Lane(lane.waiting, lane.waits_until)
    return lane


def _open(job: str | None, standings: Mapping[str, Standing]) -> Standing | None:
    """Where *job* stands, while it has not ended; what is forgotten has."""
    standing = None if job is None else standings.get(job)
    return None if standing is None or standing.state in _ENDED else standing


def _expected_until(lane: Lane, holder: Standing, patience: int) -> int:
    return max(lane.until, holder.until + patience) if holder.state is State.RUNNING else lane.until


def _fenced(before: Lane, after: Lane, standings: Mapping[str, Standing]) -> str | None:
    """The job that had the lane and has lost it, when a run of it may still be on its way."""
    standing = None if before.holder in (None, after.holder) else _open(before.holder, standings)
    return before.holder if standing is not None and standing.state is State.RUNNING else None
