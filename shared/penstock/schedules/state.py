"""The schedulers' shared state, as the one small message on the broker that whoever leads holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any  # JSON of anybody

import orjson

from penstock.message import Message
from penstock.topology.names import COMMAND_KEY

#: A state never grows beyond this (bytes of JSON): it is rewritten at every tick. What asks for more is refused.
MAX_STATE = 256 * 1024

#: Of what somebody asked for only so much is kept (characters).
_MAX_WORDS = 500

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Pause:
    """Why a schedule does not tick: since when (ms UTC), by whom, for what reason."""

    at: int
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """What the schedulers know together. The highest *seq* is the one that counts.

    *through*: the instant (seconds since 1970 UTC) up to which every tick is out. *owed*: ticks before
    it that were refused, by schedule, to be tried again. *term* counts leaders; *leader* is the last one's
    name; *written* is when it wrote this (ms UTC).
    """

    seq: int
    through: int
    term: int
    leader: str
    written: int
    paused: Mapping[str, Pause] = field(default_factory=dict)
    owed: Mapping[str, Sequence[int]] = field(default_factory=dict)

    @property
    def fits(self) -> bool:
        """Whether it may be written."""
        return len(self.encode()) <= MAX_STATE

    def encode(self) -> bytes:
        """The state as JSON."""
        return orjson.dumps({"penstock": _VERSION, **_plain(self)})


@dataclass(frozen=True, slots=True)
class Command:
    """What somebody asks of the schedulers, noted with who, when (ms UTC) and why.

    ``pause`` or ``resume`` the schedule *name*; or ``rewind`` a state that is ahead of the clock *to* an instant
    (seconds since 1970 UTC), None for the leader's present one.
    """

    command: str
    name: str
    by: str
    at: int
    reason: str = ""
    to: int | None = None

    def message(self) -> Message:
        """The command as the message to publish to ``jobs.scheduler`` by the key ``command``."""
        return Message(orjson.dumps(self), type=COMMAND_KEY)


def read_state(body: bytes) -> State | None:
    """The state that *body* holds, or None when it is not one."""
    try:
        value: Any = orjson.loads(body)
        if not isinstance(value, dict) or value.pop("penstock", None) != _VERSION:
            return None
        paused = {str(name): Pause(int(p["at"]), str(p["by"]), str(p["reason"])) for name, p in value["paused"].items()}
        owed = {str(name): tuple(int(instant) for instant in instants) for name, instants in value["owed"].items()}
        return State(
            seq=int(value["seq"]),
            through=int(value["through"]),
            term=int(value["term"]),
            leader=str(value["leader"]),
            written=int(value["written"]),
            paused=paused,
            owed=owed,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def read_command(body: bytes) -> Command | None:
    """The command that *body* holds, or None when it is not one."""
    try:
        value: Any = orjson.loads(body)
        command, name, by, reason = (str(value[part])[:_MAX_WORDS] for part in ("command", "name", "by", "reason"))
        to = value.get("to")
        asked = Command(command, name, by, int(value["at"]), reason, None if to is None else int(to))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return asked if asked.command in ("pause", "resume", "rewind") else None


def _plain(state: State) -> dict[str, Any]:
    return {name: getattr(state, name) for name in (entry.name for entry in fields(state))}
