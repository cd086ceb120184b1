"""The demo's schedule: a credit every few seconds, and whether every one of its ticks came once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import orjson

from penstock.schedules.model import tick_id
from penstock_jobs.credits import CREDIT_ADD
from services.demo.ledger import Entry

NAME = "heartbeat"

#: Seconds from one tick to the next.
EVERY = 5

#: The user whose credits the ticks are: nobody else gives any to this one.
USER = 500


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The schedule of one *run*: every ``EVERY`` seconds from *starts* on (seconds since 1970 UTC).

    Its ticks count from *since*, by when a scheduler leads: the first one on a broker makes up for nothing.
    """

    run: str
    starts: int
    since: int = 0

    @property
    def reason(self) -> str:
        """What its entries in the ledger were for: they are no jobs of the run."""
        return f"{NAME} of {self.run}"

    def write(self, path: Path) -> None:
        """Write the schedules file. JSON is YAML too."""
        schedule = {
            "every": f"{EVERY}s",
            "starts": datetime.fromtimestamp(self.starts, UTC).isoformat(),
            "kind": CREDIT_ADD.name,
            "args": {"user": USER, "amount": 1, "reason": self.reason},
        }
        path.write_bytes(orjson.dumps({"schedules": {NAME: schedule}}))

    def ids(self, entries: Iterable[Entry]) -> list[str]:
        """The job ids of its ticks among *entries*, as often as each was booked."""
        return [entry.id for entry in entries if entry.reason == self.reason]

    def due(self, until: float) -> list[str]:
        """The job ids of the ticks that count and are due by the instant *until*."""
        first = -(-max(self.starts, self.since) // EVERY) * EVERY
        return [tick_id(NAME, instant) for instant in range(first, int(until) + 1, EVERY)]

    def judge(self, entries: Iterable[Entry], until: float, kills: int) -> Ticks:
        """What became of the ticks due by *until*, with the leader killed so often meanwhile."""
        booked = Counter(self.ids(entries))
        missed = tuple(tick for tick in self.due(until) if tick not in booked)
        return Ticks(len(booked), kills, missed, booked.total() - len(booked))


@dataclass(frozen=True, slots=True)
class Ticks:
    """The ticks of a run: how many were booked, how often the leader was killed, which are missing, which too many."""

    count: int
    kills: int
    missed: Sequence[str]
    doubled: int

    @property
    def right(self) -> bool:
        """Whether each came once."""
        return not (self.missed or self.doubled)

    @property
    def line(self) -> str:
        """All of it in one line."""
        times = {0: "not killed", 1: "killed once"}.get(self.kills, f"killed {self.kills} times")
        return (
            f"schedule {NAME}: {self.count} ticks, leader {times}, "
            f"{len(self.missed) or 'none'} missed, {self.doubled or 'none'} doubled"
        )
