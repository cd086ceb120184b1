"""What a tick's arguments say about its own time: ``{{ fire_time }}`` and the like, filled in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any  # a job's arguments are any JSON

from penstock.schedules.model import Schedule, utc_text
from penstock.schedules.zones import zone

_PLACE = re.compile(r"\{\{\s*(.*?)\s*\}\}")


def _local(schedule: Schedule, instant: int) -> datetime:
    return zone(schedule.zone).local(instant)


def _previous(schedule: Schedule, instant: int) -> str | None:
    before = schedule.before(instant)
    return None if before is None else utc_text(before)


#: What may stand between the braces: UTC instants as ISO 8601, the local day and time in the schedule's zone, its name.
PLACES: Mapping[str, Callable[[Schedule, int], str | None]] = {
    "fire_time": lambda _, instant: utc_text(instant),
    "fire_time_local": lambda schedule, instant: _local(schedule, instant).isoformat(),
    "fire_date": lambda schedule, instant: _local(schedule, instant).date().isoformat(),
    "previous_fire_time": _previous,
    "name": lambda schedule, _: schedule.name,
}


def render(schedule: Schedule, instant: int) -> dict[str, Any]:
    """The arguments of *schedule*'s tick for *instant*.

    A text that is one place and nothing else becomes its value (null where there was no previous tick); within a longer
    text it becomes part of it (nothing where there was none).
    """
    filled: dict[str, Any] = _filled(schedule.args, schedule, instant)
    return filled


def unknown_places(value: object) -> Iterator[str]:
    """The names between braces, anywhere in *value*, that nothing can be filled in for."""
    match value:
        case str():
            yield from (name for name in _PLACE.findall(value) if name not in PLACES)
        case Mapping():
            for item in value.values():
                yield from unknown_places(item)
        case list() | tuple():
            for item in value:
                yield from unknown_places(item)


def _filled(value: Any, schedule: Schedule, instant: int) -> Any:
    match value:
        case str() if "{{" in value:
            return _text(value, schedule, instant)
        case Mapping():
            return {name: _filled(item, schedule, instant) for name, item in value.items()}
        case list() | tuple():
            return [_filled(item, schedule, instant) for item in value]
        case _:
            return value


def _text(text: str, schedule: Schedule, instant: int) -> str | None:
    whole = _PLACE.fullmatch(text)
    if whole is not None and whole[1] in PLACES:
        return PLACES[whole[1]](schedule, instant)
    return _PLACE.sub(lambda found: PLACES[found[1]](schedule, instant) or "", text)
