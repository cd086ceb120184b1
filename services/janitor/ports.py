"""What the janitor's job code asks of the outside: things that expire and can be deleted by small batches."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Protocol


class Problem(Exception):
    """Something cannot be purged until somebody changes it; the text says what is wrong."""


class Busy(Exception):
    """Something could not be purged this time; a later run goes on."""


class Expiring(Protocol):
    """Something of which parts expire. For one task at a time."""

    @property
    def keep(self) -> timedelta:
        """How long its parts are kept."""
        ...

    async def present(self) -> bool:
        """Whether it is there at all. Raises ``Problem`` when it is, and is not what it should be."""
        ...

    async def delete(self, before: datetime, limit: int) -> int:
        """Delete up to *limit* of what is older than *before*, for good when this returns; how many. Fewer than *limit*
        when nothing is left. Idempotent. Raises ``Problem``, ``Busy``."""
        ...

    async def count(self, before: datetime) -> int | None:
        """How many ``delete`` would find, up to ``COUNTED``; None where that cannot be told. Raises as that does."""
        ...


#: Counting ends here: it is to be told how much there is, not to read all of it.
COUNTED = 100_000
