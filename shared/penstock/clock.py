"""Where time and job ids come from: handed in, so that tests can turn the clock."""

from __future__ import annotations

import os
import time
from typing import Protocol

_48_BITS = (1 << 48) - 1
#: The digit that holds the variant: its upper two bits are 10, its lower two are random.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

#: The random halves of ids to come, drawn from the kernel so many at a time.
_halves: list[str] = []
_AT_ONCE = 256
os.register_at_fork(after_in_child=_halves.clear)


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
    when = f"{stamp & _48_BITS:012x}"
    return f"{when[:8]}-{when[8:]}-{_random_half()}"


def _random_half() -> str:
    """Version, variant and 74 random bits that nobody else gets: taking one off a list is atomic."""
    while True:
        try:
            return _halves.pop()
        except IndexError:
            digits = os.urandom(_AT_ONCE * 10).hex()
            _halves.extend(_half(digits[at : at + 20]) for at in range(0, len(digits), 20))


def _half(digits: str) -> str:
    return f"7{digits[:3]}-{_VARIANT[digits[3]]}{digits[4:7]}-{digits[7:19]}"
