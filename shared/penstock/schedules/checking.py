"""What can be said of a schedule beside its own words: whether its job can run, and whether anybody takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any  # a catalogue's kinds have arguments of many types

from penstock.errors import MessageError
from penstock.job import JobKind
from penstock.message import MAX_BODY
from penstock.schedules.model import Overlap, Schedule, utc_text
from penstock.schedules.rendering import render
from penstock.topology.form import near_or_all
from penstock.topology.matching import matches
from penstock.topology.spec import Role, Spec

#: What is wrong with a schedule, as (field, what).
Check = Callable[[Schedule], Iterator[tuple[str, str]]]

#: Ticks whose arguments are tried: the first may have none before it, and the others have.
_TRIED = 2


def needs_store(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """What cannot be kept where workers have no store."""
    if schedule.overlap is not Overlap.ALLOW:
        yield (
            "overlap",
            f"{schedule.overlap} needs a store: only there is it known whether the last one still runs; set"
            " PENSTOCK_STORE_URL here and at the workers, or say overlap: allow",
        )


def sendable(now: int) -> Check:
    """Whether the arguments of the ticks from *now* on (seconds since 1970 UTC) can be a message's body."""

    def check(schedule: Schedule) -> Iterator[tuple[str, str]]:
        try:
            longest = max((len(body) for _, body in _bodies(schedule, now)), default=0)
        except MessageError as error:
            yield "args", str(error)
            return
        if longest > MAX_BODY:
            yield "args", f"they take {longest} bytes, over the limit of {MAX_BODY}"

    return check


def fits(kinds: Mapping[str, JobKind[Any]], catalogue: str, now: int) -> Check:
    """Whether the kind is one of *kinds*, those of *catalogue*, and takes the arguments of the ticks from *now* on."""

    def check(schedule: Schedule) -> Iterator[tuple[str, str]]:
        kind = kinds.get(schedule.kind)
        if kind is None:
            yield "kind", f"no kind {schedule.kind!r} in {catalogue}{near_or_all(schedule.kind, kinds)}"
            return
        for instant, body in _bodies(schedule, now):
            try:
                kind.decode(body)
            except Exception as error:  # noqa: BLE001 - validators of a kind are foreign code and may raise anything
                yield "args", f"{error} (the tick of {utc_text(instant)})"
                return

    return check


def taken(spec: Spec, file: str) -> Check:
    """Whether a queue of the topology *file* takes the kind, and its scheduler may publish it."""
    schedulers = [user for user in spec.users if user.role is Role.SCHEDULER]

    @lru_cache(maxsize=1024)
    def problem(kind: str) -> str | None:
        if not any(matches(pattern, kind) for pattern in spec.patterns):
            return f"no queue of {file} takes {kind}: its ticks would come back; queues take {', '.join(spec.patterns)}"
        for user in schedulers:
            if not any(matches(pattern, kind) for pattern in user.publishes):
                return f"the scheduler's user {user.name} may not publish {kind}: add it to its publishes in {file}"
        return None

    def check(schedule: Schedule) -> Iterator[tuple[str, str]]:
        if (found := problem(schedule.kind)) is not None:
            yield "kind", found

    return check


def _bodies(schedule: Schedule, now: int) -> Iterator[tuple[int, bytes]]:
    """The next ticks' instants and bodies. Raises ``SchemaError`` for what cannot be JSON."""
    plain = JobKind(schedule.kind, dict)
    for instant in schedule.following(now, _TRIED):
        yield instant, plain.encode(render(schedule, instant))
