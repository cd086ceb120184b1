"""Which versions of RabbitMQ can be trusted with jobs, and why others cannot.

From RabbitMQ's release notes (https://github.com/rabbitmq/rabbitmq-server/tree/main/release-notes) up to 4.3.6.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OLDEST = (3, 10)


@dataclass(frozen=True, slots=True)
class _Series:
    """From which patch on a series is fit for production, and what the ones before lack."""

    patch: int
    lacks: str


_SERIES = {
    (3, 13): _Series(7, "3.13.0 to 3.13.2 drop messages that come back to a queue, and replication was mended later"),
    (4, 0): _Series(9, "4.0.8 mended the safety of replication"),
    (4, 1): _Series(8, "after a network partition confirms may never come, and dead letters may stall"),
    (4, 2): _Series(9, "dead letters may stall when members of a queue change"),
    (4, 3): _Series(6, "4.3.1 to 4.3.4 mended crashes and losses of quorum queues, 4.3.6 closed security holes"),
}
_NEWEST = max(_SERIES)
_OVER = "its series gets no fixes any more; lost confirms after a partition and stalled dead letters stay in it"

#: What to run instead.
FIT = ", ".join(f"{major}.{minor}.{series.patch}" for (major, minor), series in _SERIES.items()) + " or newer"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether a version can carry Penstock at all, and what production should know of it, if anything."""

    usable: bool
    lacks: str | None = None


def judge(version: str) -> Judgement:
    """Judge a version as the broker tells it. One that cannot be read is taken for a newer one."""
    match = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    if match is None:
        return Judgement(usable=True)
    series, patch = (int(match[1]), int(match[2])), int(match[3] or 0)
    if series < _OLDEST:
        return Judgement(usable=False, lacks="message delays in quorum queues came with 3.10")
    if series > _NEWEST:
        return Judgement(usable=True)
    known = _SERIES.get(series)
    if known is None:
        return Judgement(usable=True, lacks=_OVER)
    return Judgement(usable=True, lacks=known.lacks if patch < known.patch else None)
