"""What the relay asks of a database that holds an outbox, and the values that pass between them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

#: Rows are read until their bodies come to this many bytes; the first is read whatever its size.
MAX_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job that waits in an outbox; *row* is its place in the order of insertion. Instants are ms since 1970 UTC.

    *headers*: what else its message carries, as a JSON object.
    """

    row: int
    kind: str
    job_id: str
    body: bytes
    due: int | None = None
    expires: int | None = None
    correlation_id: str | None = None
    app_id: str | None = None
    headers: str | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """A job that could not be published for a *reason* of its own, and waits for somebody to look; *added* in ms."""

    job_id: str
    kind: str
    reason: str
    added: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """The jobs of one kind that are not published: *waiting*, the *oldest* of them added then (ms), *parked*."""

    kind: str
    waiting: int
    oldest: int | None
    parked: int


class Taken(Protocol):
    """The oldest waiting jobs of one kind, which no other relay publishes meanwhile."""

    @property
    def rows(self) -> Sequence[Waiting]:
        """The jobs, in order of insertion."""
        ...

    async def settle(self, published: Sequence[int], parked: Sequence[tuple[int, str]]) -> None:
        """Mark rows *published*, and others *parked* with the reason; the rest wait on. To be called once.

        Raises ``StoreUnavailable``: then all of them may wait still, and are published again.
        """
        ...


class Outbox(Protocol):
    """A database that holds an outbox, as relays use it. One event loop; safe to share by its tasks.

    Every method raises ``StoreUnavailable`` when the database cannot be reached or cannot write, and ``ConfigError``
    when its schema is missing or another than this library's.
    """

    #: Where it is, without a password.
    shown: str
    #: The longest time, in seconds, after which to look for what waits although nobody said that something does.
    poll: float

    async def open(self) -> None:
        """Connect and check the schema."""
        ...

    async def close(self) -> None:
        """Let go of everything. Idempotent."""
        ...

    async def waiting(self) -> list[str]:
        """The kinds of which jobs wait."""
        ...

    def take(self, kind: str, limit: int) -> AbstractAsyncContextManager[Taken | None]:
        """Hold *kind* during the block, with up to *limit* of its oldest waiting jobs; None when another relay has it.

        A relay that dies lets go at once or after a few seconds. One that was frozen may find that another has taken
        its place: its jobs are published twice, under the same ids.
        """
        ...

    async def news(self) -> None:
        """Return when somebody says that jobs were added, or after ``poll`` seconds."""
        ...

    async def expire(self, before: int, limit: int) -> int:
        """Forget up to *limit* jobs published before *before* (ms); returns how many."""
        ...

    async def backlog(self) -> list[Backlog]:
        """What is not published, by kind."""
        ...

    async def parked(self, limit: int) -> list[Parked]:
        """Up to *limit* parked jobs, the oldest first."""
        ...

    async def retry(self, job_ids: Sequence[str] | None) -> list[str]:
        """Let parked jobs (None: all) be tried again; the ids of those that were parked."""
        ...
