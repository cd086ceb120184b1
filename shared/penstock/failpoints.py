"""Places where a test can make a process die, stop or fail: nothing unless ``PENSTOCK_FAILPOINTS`` names them."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.errors import ConfigError

VARIABLE = "PENSTOCK_FAILPOINTS"

#: Every place there is: those of a job in the order it meets them, then those of dead letters, of a relay and of a
#: scheduler.
PLACES = (
    "before-claim",
    "before-enter",
    "claimed",
    "handled",
    "before-commit",
    "committed",
    "before-mark",
    "copy-confirmed",
    "letters-named",
    "letter-confirmed",
    "outbox-taken",
    "outbox-published",
    "ticks-published",
    "state-written",
)

_WAYS = ("kill", "stop", "raise", "exit")


class FailpointError(Exception):
    """Raised where a failpoint says ``raise``."""


@dataclass(slots=True)
class _Point:
    """What happens at a place, from its *nth* passing on: once."""

    way: str
    nth: int
    passed: int = 0


def parse(text: str) -> dict[str, _Point]:
    """Read ``claimed=kill@3,committed=stop``. Raises ``ConfigError``."""
    points = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        place, _, what = item.partition("=")
        way, _, nth = what.partition("@")
        if place not in PLACES or way not in _WAYS or not (nth or "1").isdecimal():
            raise ConfigError(f"{VARIABLE}: {item!r} is not PLACE=WAY or PLACE=WAY@N; see penstock.failpoints")
        points[place] = _Point(way, int(nth or 1))
    return points


def check(environment: Mapping[str, str]) -> None:
    """Raise ``ConfigError`` when failpoints are set where nobody may want them: in production."""
    if environment.get(VARIABLE) and environment.get("PENSTOCK_ENV", "").lower() == "production":
        raise ConfigError(f"{VARIABLE} is set, and PENSTOCK_ENV says production: it is for tests, take it away")


_points = parse(os.environ.get(VARIABLE, "")) if os.environ.get("PENSTOCK_ENV", "").lower() != "production" else {}


def reach(place: str) -> None:
    """Come by *place*: die, stop (until SIGCONT) or raise there when a test wants it."""
    if _points:
        _meet(place)


def _meet(place: str) -> None:
    point = _points.get(place)
    if point is None:
        return
    point.passed += 1
    if point.passed != point.nth:
        return
    if point.way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif point.way == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif point.way == "exit":
        os._exit(1)
    else:
        raise FailpointError(place)
