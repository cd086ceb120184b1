"""A schedule: which job comes when, and what happens to the ones that were missed or would run beside each other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any, Protocol  # a job's arguments are any JSON

#: A tick this late or earlier is published whatever ``catch_up`` says: a hand-over between schedulers takes up to 15 s.
GRACE = timedelta(minutes=1)

#: How many missed ticks ``catch_up: all`` makes up for, the newest ones, unless the schedule says otherwise.
MAX_CATCH_UP = 100

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


class CatchUp(StrEnum):
    """Which of the ticks missed by more than the grace are published after all."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class Overlap(StrEnum):
    """What becomes of a tick whose predecessor has not ended yet."""

    ALLOW = "allow"
    SKIP = "skip"
    BUFFER_ONE = "buffer-one"


class Trigger(Protocol):
    """When a schedule is due. Immutable, hashable, and equal to others that say the same: schedules that share a
    trigger share its arithmetic. Instants are whole seconds since 1970 UTC."""

    def after(self, instant: int) -> int | None:
        """The first instant after *instant*, None when there is none any more."""
        ...

    def before(self, instant: int) -> int | None:
        """The last instant before *instant*, None when there was none."""
        ...

    @property
    def words(self) -> str:
        """When it is due, as people say it."""
        ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """One entry of a schedules file. *starts* and *ends* bound its instants, both included (seconds since 1970 UTC).

    *jitter*: up to so much later, the same for the same instant. *grace*: lateness that is no catching up. *expires*:
    how long after its instant a tick may still begin to run. *line*: where it is in its file.
    """

    name: str
    kind: str
    trigger: Trigger
    args: Mapping[str, Any] = field(default_factory=dict)
    zone: str = "UTC"
    catch_up: CatchUp = CatchUp.NONE
    max_catch_up: int = MAX_CATCH_UP
    overlap: Overlap = Overlap.ALLOW
    jitter: timedelta = timedelta()
    grace: timedelta = GRACE
    starts: int | None = None
    ends: int | None = None
    expires: timedelta | None = None
    enabled: bool = True
    line: int = 0

    def after(self, instant: int) -> int | None:
        """The first instant of this schedule after *instant*, within its bounds; None when there is none any more."""
        found = self.trigger.after(instant if self.starts is None else max(instant, self.starts - 1))
        return None if found is None or (self.ends is not None and found > self.ends) else found

    def following(self, instant: int, count: int) -> list[int]:
        """Up to *count* instants of this schedule after *instant*."""
        found: list[int] = []
        while len(found) < count and (after := self.after(found[-1] if found else instant)) is not None:
            found.append(after)
        return found

    def before(self, instant: int) -> int | None:
        """The last instant of this schedule before *instant*, within its bounds; None when there was none."""
        found = self.trigger.before(instant if self.ends is None else min(instant, self.ends + 1))
        return None if found is None or (self.starts is not None and found < self.starts) else found


def is_name(text: str) -> bool:
    """Whether a schedule can be called *text*."""
    return _NAME.fullmatch(text) is not None


def tick_id(name: str, instant: int) -> str:
    """The job id of a schedule's tick: the same whoever publishes it, so that a doubled tick has one effect."""
    return f"schedule:{name}:{utc_text(instant)}"


@lru_cache(maxsize=256)  # thousands of schedules fall due at the same instant
def utc_text(instant: int) -> str:
    """An instant as ISO 8601 in UTC: ``2026-11-25T05:00:00Z``."""
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
