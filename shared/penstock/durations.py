"""Durations as people write them: ``90``, ``90s``, ``5m``, ``2h``, ``1h30m``."""

from __future__ import annotations

import re
from datetime import timedelta

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)(ms|s|m|h|d|w)", re.ASCII)
_NUMBER = re.compile(r"\d{1,12}(?:\.\d{1,6})?", re.ASCII)

EXPECTED = "expected a duration such as 90, 90s, 5m or 1h30m"


def duration(text: str) -> timedelta:
    """Read a duration; a bare number is seconds. Raises ``ValueError`` for anything else, a negative one included."""
    words = text.strip().lower()
    if _NUMBER.fullmatch(words):
        return _sum([(words, "s")], text)
    parts = _PART.findall(words)
    if not parts or "".join(number + unit for number, unit in parts) != words:
        raise ValueError(f"{text!r} is not a duration: {EXPECTED}")
    return _sum(parts, text)


def _sum(parts: list[tuple[str, str]], text: str) -> timedelta:
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    except OverflowError:
        raise ValueError(f"{text!r} is longer than any duration can be") from None
