"""The store in a PostgreSQL database: for workers on any number of hosts, effects and marks in one commit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any  # rows and parameters are whatever SQL carries

from penstock.claims import Answer, Claim, Mark, Record, StoreUrl, UnderWay
from penstock.clock import Clock
from penstock.errors import ConfigError, StoreUnavailable
from penstock.overlaps import Admission, Entry
from penstock.stores import postgres_overlap, postgres_runs, schema
from penstock.stores import postgres_statements as statements
from penstock.stores.postgres_claims import ROUNDS, PostgresClaims
from penstock.stores.postgres_connections import BRIEF, BY_KEY, PATIENCE, BlockingPool, Dialer, Pool, Session
from penstock.stores.postgres_effects import BlockingPostgresEffect, PostgresEffect
from penstock.stores.postgres_errors import translated
from penstock.stores.postgres_own_effects import OwnPostgresEffect
from penstock.stores.postgres_turns import Turns
from penstock.storing import StoreStatus

#: A worker that is stopped, or whose host has gone, does not hold its handlers' locks for ever.
_EFFECTS = {"idle_in_transaction_session_timeout": "15min", "client_connection_check_interval": "10s"}

#: Marks, renewals and housekeeping side by side.
_CHORES = 2

#: How long a statement is waited for that reads every record, or makes an index of them.
_THOROUGH = timedelta(minutes=10)

_MIGRATION_LOCK = 0x70656E73  # any number that nobody else uses


class PostgresStore:
    """An ``EffectStore`` in the PostgreSQL database *url* names, with up to *connections* effects at once in coroutines
    and as many in threads.

    Leases are measured by the server's clock, or by *clock* when it is given. *patience*: how long a free connection
    is waited for, and an answer to a statement of the library; those of handlers take their time. An effect that leaves
    its transaction alone for 15 minutes, and is not renewed, is rolled back. Needs PostgreSQL 14.

    Raises ``ConfigError`` for a bad URL.
    """

    def __init__(
        self,
        url: StoreUrl,
        *,
        connections: int = 16,
        clock: Clock | None = None,
        patience: timedelta = PATIENCE,
    ) -> None:
        self.shown = url.shown
        self._clock = clock
        self._alone = Dialer(url)
        self._introduced = set[str]()
        self._claims = PostgresClaims(url, patience, self._now)
        self._chores = Pool(Dialer(url, **BY_KEY, **BRIEF), _CHORES, patience)
        effects = Dialer(url, **_EFFECTS)
        self._effects = Turns(effects, connections, patience)
        self._blocking_effects = BlockingPool(effects, connections, patience)

    async def open(self) -> None:
        """See ``Store.open``."""
        for pool in (self._claims, self._chores, self._effects, self._blocking_effects):
            pool.open()
        try:
            [[version]] = await self._run(self._chores, statements.VERSION)
            self._check_schema(version)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See ``Store.close``."""
        for pool in (self._claims, self._chores, self._effects):
            await pool.close()
        self._blocking_effects.close()

    async def ping(self) -> None:
        """See ``Store.ping``."""
        [[writable]] = await self._run(self._chores, statements.WRITABLE)
        if not writable:
            raise StoreUnavailable(f"{self.shown} takes no writes: it is a standby, or read-only")

    async def claim(self, claims: Sequence[Claim]) -> list[Answer]:
        """See ``Store.claim``."""
        return await self._claims.claim(claims)

    async def mark(self, marks: Sequence[Mark]) -> list[bool]:
        """See ``Store.mark``."""
        claims = statements.storable_claims([mark.claim for mark in marks])
        asked = [replace(mark, claim=claim) for mark, claim in zip(marks, claims, strict=True)]
        rows = await self._run(self._chores, statements.END, {"asked": statements.asked_to_end(asked)})
        return _found(claims, rows)

    async def renew(self, claims: Sequence[Claim]) -> list[bool]:
        """See ``Store.renew``."""
        claims = statements.storable_claims(claims)
        return _found(claims, await self._run(self._chores, statements.LEASE, self._asked(claims)))

    async def release(self, claims: Sequence[Claim]) -> None:
        """See ``Store.release``."""
        ended = [replace(claim, lease=0) for claim in statements.storable_claims(claims)]
        await self._run(self._chores, statements.LEASE, self._asked(ended))

    async def enter(self, entry: Entry) -> Admission:
        """See ``Store.enter``."""
        async with self._lent(self._chores) as session:
            return await postgres_overlap.enter(session, entry, self._now())

    async def expire(self, before: int, limit: int) -> int:
        """See ``Store.expire``."""
        async with self._lent(self._chores) as session:
            values = {"before": before, "limit": limit, "now": self._now()}
            forgotten = (await session.execute(statements.EXPIRE, values)).rowcount
            await session.execute(postgres_overlap.EXPIRE, values)
            return forgotten

    async def records(self, job_id: str) -> list[Record]:
        """See ``Store.records``."""
        rows = await self._run(self._chores, statements.RECORDS, (statements.storable(job_id),))
        return [statements.record(row) for row in rows]

    async def under_way(self, job_id: str) -> list[UnderWay]:
        """See ``OwnEffectStore.under_way``."""
        async with self._lent(self._chores) as session:
            return await postgres_runs.under_way(session, job_id)

    async def forget(self, job_id: str) -> int:
        """See ``Store.forget``."""
        async with self._lent(self._chores) as session:
            return await postgres_runs.forget(session, job_id)

    async def status(self) -> StoreStatus:
        """See ``Store.status``. Reads every record."""
        async with self._for_once() as session:
            version = await _version(session)
            if version is None:
                return StoreStatus(None, len(schema.POSTGRES))
            counts = dict(await (await session.execute(statements.COUNTS)).fetchall())
            [[oldest]] = await (await session.execute(statements.OLDEST)).fetchall()
            return StoreStatus(version, len(schema.POSTGRES), counts, oldest)

    async def migrate(self) -> tuple[int | None, int]:
        """See ``Store.migrate``. Needs the right to create tables when there is something to do."""
        async with self._for_once() as session:
            await session.execute("BEGIN")
            await session.execute("SELECT pg_advisory_xact_lock(%s)", (_MIGRATION_LOCK,))
            before, newest = await _version(session), len(schema.POSTGRES)
            if before is not None:
                self._check_not_newer(before)
            if before != newest:
                await _migrate(session, before)
            await session.execute("COMMIT")
        return before, newest

    async def production_problems(self) -> list[str]:
        """See ``Store.production_problems``."""
        [[fsync, commit]] = await self._run(self._chores, statements.SETTINGS)
        problems = {
            "fsync is off: a crash of its machine can lose or garble everything; set fsync = on": fsync == "off",
            "synchronous_commit is off: a crash can forget effects and marks it had confirmed; set it to on": commit
            == "off",
        }
        return [f"{self.shown}: {problem}" for problem, found in problems.items() if found]

    async def begin(self, claim: Claim) -> OwnPostgresEffect | Answer:
        """See ``OwnEffectStore.begin``."""
        if claim.consumer not in self._introduced:
            async with self._lent(self._chores) as session:
                await postgres_runs.introduce(session, claim.consumer)
            self._introduced.add(claim.consumer)
        for _ in range(ROUNDS):
            effect = OwnPostgresEffect(self._effects, self.shown)
            if await effect.take(claim, self._now()):
                return effect
            if (answer := await self._claims.refused(claim)) is not None:
                return answer
        raise StoreUnavailable(f"{self.shown}: a record changed whenever it was claimed")

    def effect(self) -> AbstractAsyncContextManager[PostgresEffect]:
        """See ``EffectStore.effect``."""
        return PostgresEffect(self._effects, self.shown)

    def blocking_effect(self) -> AbstractContextManager[BlockingPostgresEffect]:
        """See ``EffectStore.blocking_effect``."""
        return BlockingPostgresEffect(self._blocking_effects, self.shown)

    def _asked(self, claims: Sequence[Claim]) -> Mapping[str, Any]:
        return {"asked": statements.asked(claims), "now": self._now()}

    def _now(self) -> int | None:
        return None if self._clock is None else self._clock.now_ms()

    async def _run(
        self, pool: Pool, statement: str, values: Mapping[str, Any] | Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        async with self._lent(pool) as session:
            return await (await session.execute(statement, values or None, prepare=True)).fetchall()

    @asynccontextmanager
    async def _lent(self, pool: Pool) -> AsyncIterator[Session]:
        with translated(self.shown):
            async with pool.lent() as session:
                yield session

    @asynccontextmanager
    async def _for_once(self) -> AsyncIterator[Session]:
        """A connection for once, opened or not."""
        session = await self._alone.dial(_THOROUGH)
        try:
            with translated(self.shown):
                yield session
        finally:
            await session.close()

    def _check_schema(self, version: int | None) -> None:
        newest = len(schema.POSTGRES)
        if version is None or version < newest:
            raise ConfigError(f"{self.shown} has schema {version or 'none'}, not {newest}: run penstock store migrate")
        self._check_not_newer(version)

    def _check_not_newer(self, version: int) -> None:
        if version > (newest := len(schema.POSTGRES)):
            raise ConfigError(
                f"{self.shown} has schema {version}, newer than this penstock knows ({newest}): update it"
            )


def _found(claims: Sequence[Claim], rows: Iterable[tuple[str, str]]) -> list[bool]:
    found = set(rows)
    return [claim.key in found for claim in claims]


async def _version(session: Session) -> int | None:
    [[present]] = await (await session.execute(statements.HAS_SCHEMA)).fetchall()
    if not present:
        return None
    [[version]] = await (await session.execute(statements.VERSION)).fetchall()
    return None if version is None else int(version)


async def _migrate(session: Session, before: int | None) -> None:
    for statement in (schema.VERSION_TABLE, *schema.missing(schema.POSTGRES, before), "DELETE FROM penstock_schema"):
        await session.execute(statement)
    await session.execute("INSERT INTO penstock_schema VALUES (%s)", (len(schema.POSTGRES),))
