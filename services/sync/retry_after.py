"""How long a server asks to be left alone: the header Retry-After, in seconds or as a date (RFC 9110, 10.2.3)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

#: What asks for less, or for a time that has passed, is as good as this.
SHORTEST = timedelta(seconds=1)


def retry_after(headers: Mapping[str, str], *, longest: timedelta) -> timedelta | None:
    """What *headers* (their names in lower case, or found in any) ask for, from 1 s to *longest*; None when they ask
    for nothing that can be read.

    A date is taken by the server's own clock where it tells it: ours may be another.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        asked = timedelta(seconds=min(int(text[:12]), int(longest.total_seconds()) + 1))
    elif (then := _date(text)) is not None:
        asked = then - (_date(headers.get("date", "")) or datetime.now(UTC))
    else:
        return None
    return min(max(asked, SHORTEST), longest)


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
