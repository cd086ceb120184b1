"""How far ffmpeg is, as it says itself, logged now and then."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta

from services.media.ports import Refused

_log = logging.getLogger("services.media")

_REACHED, _SPEED, _END_OF_BLOCK = b"out_time_us", b"speed", b"progress"


class Progress:
    """Hears the lines of ``-progress`` and logs a line each *period*, whatever it hears.

    *seconds*: how long the video is, None when it does not say; *most*: how long one may be.
    """

    def __init__(
        self, seconds: float | None, most: float, period: timedelta, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._period = period.total_seconds()
        self._now = now
        self._due = now() + self._period
        self._reached = 0.0
        self._speed = ""

    def hear(self, line: bytes) -> None:
        """Take a line in. Raises ``Refused`` when the video turns out to be too long."""
        name, _, value = line.strip().partition(b"=")
        if name == _REACHED and value.isdigit():
            self._reached = int(value) / 1_000_000
            if self._reached > self._most:
                raise Refused(f"it is longer than {self._most:g} s (MEDIA_MAX_DURATION)")
        elif name == _SPEED:
            self._speed = value.decode("ascii", "replace").strip()
        elif name == _END_OF_BLOCK and self._now() >= self._due:
            self._due = self._now() + self._period
            self._tell()

    def _tell(self) -> None:
        far = f"{self._reached:.1f} s"
        if self._seconds is not None:
            far = f"{min(self._reached / self._seconds, 1):.0%}: {far} of {self._seconds:.1f} s"
        _log.info("%s, %s as fast as it plays", far, self._speed or "who knows how")
