"""``penstock schedule list``: what came, what became of it, what comes next, and what is paused."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any  # facts as JSON

import typer

from penstock.cli.schedule_outcomes import Outcomes, WorkersStore, in_words, outcomes
from penstock.cli.scheduling import FILE, File, both, local_text, now_ms, on_broker, require, seen, shown_json
from penstock.cli.storing import AsJson, show_columns
from penstock.printable import printable
from penstock.reconnecting import Reconnecting
from penstock.schedules.model import Schedule, tick_id, utc_text
from penstock.schedules.reading import read_schedules
from penstock.schedules.state import State
from penstock.settings import Settings

#: Clocks further apart than this (seconds) are not both right.
_APART = 60
_AHEAD = "a clock was ahead, see penstock schedule rewind"

_HEADS = ("schedule", "when", "last", "outcome", "next", "next UTC", "")


def list_command(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these.")] = None,
    file: File = FILE,
    store_url: WorkersStore = None,
    as_json: AsJson = False,
) -> None:
    """Say what came last and what became of it, what comes next, and what is paused.

    What came is what the schedulers' state on the broker tells; what became of it, the workers' store.
    """
    schedules = read_schedules(file)
    if names:
        require(names, {schedule.name for schedule in schedules}, file)
        schedules = tuple(schedule for schedule in schedules if schedule.name in names)
    settings = Settings.load(store_url=store_url)

    async def look(links: Reconnecting) -> tuple[State | None, Outcomes, str]:
        state = await seen(links)
        ids = [tick_id(each.name, last) for each in schedules if (last := last_due(each, state)) is not None]
        return state, *await outcomes(settings, ids)

    state, known, reason = on_broker(settings, look)
    if as_json:
        facts = [_facts(schedule, state, known) for schedule in schedules]
        shown_json({**_leader_facts(state), "outcomes_unknown": reason or None, "schedules": facts})
        return
    show_columns(_HEADS, [_row(schedule, state, known) for schedule in schedules])
    for line in (_leader(state), reason):
        if line:
            typer.echo(line)


def last_due(schedule: Schedule, state: State | None) -> int | None:
    """The newest instant of *schedule* whose tick is out, by the schedulers' *state*; None when that is not known."""
    if state is None or not schedule.enabled:
        return None
    paused = state.paused.get(schedule.name)
    until = state.through if paused is None else min(state.through, paused.at // 1000)
    return schedule.before(until + 1)


def next_due(schedule: Schedule, state: State | None) -> int | None:
    """When *schedule* ticks next; None while it is disabled or paused, and when it never does again."""
    if not schedule.enabled or (state is not None and schedule.name in state.paused):
        return None
    return schedule.after(int(time.time()))


def _row(schedule: Schedule, state: State | None, known: Outcomes) -> Sequence[str]:
    last, following = last_due(schedule, state), next_due(schedule, state)
    return (
        schedule.name,
        schedule.trigger.words,
        "-" if last is None else local_text(schedule, last),
        "-" if last is None else in_words(known, tick_id(schedule.name, last)),
        "-" if following is None else local_text(schedule, following),
        "-" if following is None else utc_text(following),
        _note(schedule, state),
    )


def _facts(schedule: Schedule, state: State | None, known: Outcomes) -> Mapping[str, Any]:
    last, following = last_due(schedule, state), next_due(schedule, state)
    paused = state.paused.get(schedule.name) if state else None
    return {
        "schedule": schedule.name,
        "kind": schedule.kind,
        "when": schedule.trigger.words,
        "zone": schedule.zone,
        "enabled": schedule.enabled,
        "paused": None if paused is None else {"by": paused.by, "at": paused.at, "reason": paused.reason},
        "owed": len(state.owed.get(schedule.name, ())) if state else 0,
        "last": None if last is None else _last(schedule, last, known),
        "next": None if following is None else both(schedule, following),
    }


def _last(schedule: Schedule, instant: int, known: Outcomes) -> Mapping[str, Any]:
    job_id = tick_id(schedule.name, instant)
    return {**both(schedule, instant), "id": job_id, "outcomes": known.get(job_id)}


def _note(schedule: Schedule, state: State | None) -> str:
    paused = state.paused.get(schedule.name) if state else None
    owed = len(state.owed.get(schedule.name, ())) if state else 0
    if paused is not None:
        why = f": {paused.reason}" if paused.reason else ""
        return printable(f"paused by {paused.by} at {utc_text(paused.at // 1000)}{why}")
    if not schedule.enabled:
        return "disabled"
    if owed:
        return f"{owed} refused, tried again"
    return "never again" if next_due(schedule, state) is None else ""


def _leader_facts(state: State | None) -> Mapping[str, Any]:
    if state is None:
        return {"leader": None, "term": None, "through": None, "written": None}
    return {"leader": state.leader, "term": state.term, "through": utc_text(state.through), "written": state.written}


def _leader(state: State | None) -> str:
    if state is None:
        return "no state of schedulers on the broker: none has run yet"
    now = now_ms()
    age = max(0, (now - state.written) // 1000)
    right = state.through <= now // 1000 + _APART
    ahead = "" if right else f"; nothing ticks until {utc_text(state.through)}: {_AHEAD}"
    return f"led by {printable(state.leader)}, term {state.term}; its last word is {age} s old{ahead}"
