"""What the library asks of a store: claims and marks for every job, and transactions that hold an effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable  # rows and parameters are whatever SQL carries

from penstock.claims import Answer, Claim, Mark, Record, State, UnderWay
from penstock.overlaps import Admission, Entry

Parameters = Sequence[Any] | Mapping[str, Any]

_UNDEFINED_TABLE = "42P01"


class Rows(Protocol):
    """What a statement gave, all of it fetched already."""

    @property
    def rowcount(self) -> int:
        """How many rows were found or changed."""
        ...

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Every row that is left."""
        ...


class Transaction(Protocol):
    """The transaction of an ``async def`` handler. It is committed when the handler returns, together with the mark
    that the job is done, and rolled back when it raises. For one task at a time."""

    @property
    def connection(self) -> Any:
        """The driver's own connection (``psycopg.AsyncConnection`` or ``sqlite3.Connection``): never commit on it."""
        ...

    async def execute(self, statement: str, parameters: Parameters = ()) -> Rows:
        """Run one SQL *statement*; parameters are written ``%s`` or ``%(name)s`` on every database.

        Raises the driver's errors, and ``StoreUnavailable`` when the database is gone.
        """
        ...


class BlockingTransaction(Protocol):
    """The transaction of a ``def`` handler; otherwise as ``Transaction``."""

    @property
    def connection(self) -> Any:
        """The driver's own connection (``psycopg.Connection`` or ``sqlite3.Connection``): never commit on it."""
        ...

    def execute(self, statement: str, parameters: Parameters = ()) -> Rows:
        """As ``Transaction.execute``."""
        ...


class Effect(Protocol):
    """An open transaction with the right to write the mark into it."""

    @property
    def transaction(self) -> Transaction:
        """What the handler gets."""
        ...

    async def complete(self, claim: Claim, result: bytes | None) -> bool:
        """Write that the job is done: committed with the rest, at the latest when the block ends. False when *claim*
        does not hold its record any more: then the block has to raise, and nothing is committed. The last thing of the
        transaction. Raises ``StoreUnavailable``."""
        ...


class BlockingEffect(Protocol):
    """As ``Effect``, for the thread that opened it."""

    @property
    def transaction(self) -> BlockingTransaction:
        """What the handler gets."""
        ...

    def complete(self, claim: Claim, result: bytes | None) -> bool:
        """As ``Effect.complete``."""
        ...


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What a store holds: records by state, the instant (ms) the oldest was last claimed, its schema's version."""

    schema: int | None
    newest_schema: int
    records: Mapping[str, int] = field(default_factory=dict)
    oldest: int | None = None


class Store(Protocol):
    """A store that remembers jobs. One event loop; safe to share by its tasks. Instants are ms since 1970 UTC.

    Its own clock decides about leases: the database server's, or the host's for a file. Every method raises
    ``StoreUnavailable`` when the store cannot be reached or cannot write (then what was asked may or may not have
    happened; asking again is safe), and ``ConfigError`` when its schema is missing or newer than this library.
    """

    #: Where it is, without a password.
    shown: str

    async def open(self) -> None:
        """Connect and check the schema."""
        ...

    async def close(self) -> None:
        """Let go of everything. Idempotent."""
        ...

    async def ping(self) -> None:
        """Return when the store answers and can write."""
        ...

    async def claim(self, claims: Sequence[Claim]) -> list[Answer]:
        """Answer each claim by ``claims.decide``, atomically each; the keys in one call are distinct.

        A record that a ``FRESH`` claim takes over gets its copy, token and lease, and its ``args_hash`` if it has one.
        An answer need not survive a crash of the store: then the token does not either, and the effect cannot commit.
        """
        ...

    async def mark(self, marks: Sequence[Mark]) -> list[bool]:
        """Write how runs ended, durably; False where the claim does not hold its record any more. Distinct keys.

        The same mark again is True.
        """
        ...

    async def renew(self, claims: Sequence[Claim]) -> list[bool]:
        """Let each claim's lease begin anew; False where it does not hold its record, or its run has ended."""
        ...

    async def release(self, claims: Sequence[Claim]) -> None:
        """Let each claim's lease end now, when it still holds its record: the job may be claimed again at once."""
        ...

    async def enter(self, entry: Entry) -> Admission:
        """Whether a tick may run beside the others of its schedule at its consumer: by ``overlaps.decide``, atomically
        with their records, and durably.

        May be asked again as it is, and by whoever has the lane with a longer *patience*, which then counts.
        """
        ...

    async def expire(self, before: int, limit: int) -> int:
        """Forget up to *limit* records last claimed before *before* that no live lease holds; returns how many.

        A lane goes when it was last heard of before *before* and its holder is forgotten.

        Takes no lock that a claim would wait for longer than one small batch takes.
        """
        ...

    async def records(self, job_id: str) -> list[Record]:
        """What is remembered of a job, by consumer."""
        ...

    async def forget(self, job_id: str) -> int:
        """Forget a job at every consumer: its next delivery runs. Returns how many records there were."""
        ...

    async def status(self) -> StoreStatus:
        """What the store holds. Also answers when the schema is missing."""
        ...

    async def migrate(self) -> tuple[int | None, int]:
        """Make or update the schema, idempotently and safe to run twice at once; the versions before and after.

        Opens no more than it needs: to be called before ``open``.
        """
        ...

    async def production_problems(self) -> list[str]:
        """What keeps this store from being trusted in production, a line each."""
        ...


@runtime_checkable
class EffectStore(Store, Protocol):
    """A store whose transactions can hold an effect together with its mark."""

    def effect(self) -> AbstractAsyncContextManager[Effect]:
        """A transaction, committed by ``complete`` or at the end of the block, and rolled back when that raises.

        Raises ``StoreUnavailable`` when it cannot be opened or committed; then the effect may or may not have happened,
        and the mark with it.
        """
        ...

    def blocking_effect(self) -> AbstractContextManager[BlockingEffect]:
        """As ``effect``, for the calling thread; many threads may have one each."""
        ...


class OwnEffect(Effect, AbstractAsyncContextManager["OwnEffect"], Protocol):
    """An effect whose claim is a part of its own transaction: to be entered once, or abandoned. A block that ends
    without ``complete`` is rolled back."""

    async def renew(self) -> None:
        """Let the claim's lease begin anew. Safe while the handler is at work. Raises ``StoreUnavailable``."""
        ...

    async def abandon(self) -> None:
        """Roll back what was not entered. Idempotent."""
        ...


@runtime_checkable
class OwnEffectStore(EffectStore, Protocol):
    """A store that can claim within the effect's transaction: nothing is to be seen of it before that is committed,
    and nothing is left when it is rolled back."""

    async def begin(self, claim: Claim) -> OwnEffect | Answer:
        """Claim, and open the transaction; the answer when that is not ``FRESH``.

        Others that claim the job meanwhile are answered ``RUNNING``. A transaction left alone for its claim's lease is
        ended when another claim finds it. The same claim must not be made again.
        """
        ...

    async def under_way(self, job_id: str) -> list[UnderWay]:
        """The runs of a job that have begun and not ended, by consumer. ``forget`` ends them."""
        ...


async def standing(store: Store, job_id: str) -> list[Record | UnderWay]:
    """Where a job stands at each of its consumers, by their names: what is remembered of it, or that it runs just now.

    Raises as ``Store.records``.
    """
    # Looked at in this order: a run that ends between the looks is found where it ended.
    under_way = await store.under_way(job_id) if isinstance(store, OwnEffectStore) else []
    found: dict[str, Record | UnderWay] = {run.consumer: run for run in under_way}
    found |= {
        record.consumer: record
        for record in await store.records(job_id)
        if record.consumer not in found or record.state in (State.DONE, State.SKIPPED)
    }
    return [found[consumer] for consumer in sorted(found)]


def lacks_a_table(error: Exception) -> bool:
    """Whether *error*, of whichever driver, says that a table is not there."""
    return getattr(error, "sqlstate", None) == _UNDEFINED_TABLE or "no such table" in str(error)
