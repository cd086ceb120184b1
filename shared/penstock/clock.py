"""Where time and job ids come from: handed in, so that tests can turn the clock."""

from __future__ import annotations

import os
import time
from typing import Protocol


_48_BITS = (1 << 48) - 1
_VERSION_AND_VARIANT = 0x7 << 76 | 0x2 << 62
_RANDOM = (1 << 80) - 1 & ~(0xF << 76 | 0x3 << 62)


class Clock(Protocol):
    """The wall clock. Loop time (deadlines, timers) always stays the event loop's own."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since 1970 UTC."""
        return time.time_ns() // 1_000_000


def new_job_id(now_ms: int | None = None) -> str:
    """Return a fresh UUIDv7 (RFC 9562, section 5.7) as text: 48 bits of time, 74 random bits. Thread- and fork-safe."""
    stamp = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    text = f"{(stamp & _48_BITS) << 80 | int.from_bytes(os.urandom(10)) & _RANDOM | _VERSION_AND_VARIANT:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
