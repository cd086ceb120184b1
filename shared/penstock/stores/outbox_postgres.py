"""The outbox in a PostgreSQL database, as relays use it: a kind is held by the lock of its row, bells are NOTIFY."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from penstock.claims import StoreUrl
from penstock.clock import Clock, SystemClock
from penstock.relaying import MAX_BYTES, Backlog, Parked, Waiting
from penstock.stores import postgres_statements as statements
from penstock.stores import schema
from penstock.stores.outbox_statements import BACKLOG, COLUMNS, KINDS, WAITS, check_version
from penstock.stores.postgres_connections import BRIEF, BY_KEY, Dialer, Pool, Session
from penstock.stores.postgres_errors import translated

CHANNEL = "penstock_outbox"

#: A relay that was frozen, or whose host has gone, does not keep its kind for ever.
_RELAY = {"idle_in_transaction_session_timeout": "60s"}

_KNOW = "INSERT INTO penstock_outbox_kinds SELECT unnest(%s::text[]) ON CONFLICT DO NOTHING"
#: Another level than this might show rows as they were before the other relay let go of the kind.
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_HOLD = "SELECT 1 FROM penstock_outbox_kinds WHERE kind = %s FOR UPDATE SKIP LOCKED"
_ROWS = f"""SELECT {COLUMNS} FROM (
        SELECT *, sum(octet_length(body)) OVER (ORDER BY id) - octet_length(body) AS before FROM (
            SELECT {COLUMNS} FROM penstock_outbox WHERE kind = %s AND {WAITS} ORDER BY id LIMIT %s) AS oldest) AS summed
    WHERE before < {MAX_BYTES} ORDER BY id"""
_PUBLISHED = "UPDATE penstock_outbox SET published = %s WHERE id = ANY(%s) AND published IS NULL"
_PARKED = f"""UPDATE penstock_outbox AS o SET parked = found.reason
    FROM unnest(%s::bigint[], %s::text[]) AS found (id, reason) WHERE o.id = found.id AND {WAITS}"""
_EXPIRE = """DELETE FROM penstock_outbox WHERE id = ANY(ARRAY(
    SELECT id FROM penstock_outbox WHERE published < %s ORDER BY published LIMIT %s FOR UPDATE SKIP LOCKED))"""
_LIST = "SELECT job_id, kind, parked, created FROM penstock_outbox WHERE parked IS NOT NULL ORDER BY id LIMIT %s"
_RETRY = """UPDATE penstock_outbox SET parked = NULL
    WHERE parked IS NOT NULL AND (%(ids)s::text[] IS NULL OR job_id = ANY(%(ids)s::text[])) RETURNING job_id"""


class PostgresOutbox:
    """An ``Outbox`` in the PostgreSQL database *url* names, with up to *connections* kinds held at once.

    A relay that dies lets go at once, one that is frozen after a minute. Raises ``ConfigError`` for a bad URL.
    """

    poll = 1.0

    def __init__(self, url: StoreUrl, *, connections: int = 4, clock: Clock | None = None) -> None:
        self.shown = url.shown
        self._clock = clock or SystemClock()
        dialer = Dialer(url, **_RELAY, **BY_KEY, **BRIEF)
        self._kinds = Pool(dialer, connections)
        self._chores = Pool(dialer, 2)
        self._dialer = dialer
        self._listening: Session | None = None
        self._known: set[str] = set()

    async def open(self) -> None:
        """See ``Outbox.open``."""
        self._kinds.open()
        self._chores.open()
        async with self._lent(self._chores) as session:
            [[present]] = await (await session.execute(statements.HAS_SCHEMA)).fetchall()
            found = await (await session.execute(statements.VERSION)).fetchall() if present else []
        check_version(found[0][0] if found else None, len(schema.POSTGRES), self.shown)

    async def close(self) -> None:
        """See ``Outbox.close``."""
        await self._kinds.close()
        await self._chores.close()
        await self._hang_up()

    async def waiting(self) -> list[str]:
        """See ``Outbox.waiting``."""
        async with self._lent(self._chores) as session:
            kinds = [kind for (kind,) in await (await session.execute(KINDS)).fetchall()]
            if fresh := [kind for kind in kinds if kind not in self._known]:
                # Committed before it is held: another relay that meets the kind would wait for a longer transaction.
                await session.execute(_KNOW, (fresh,))
            self._known = set(kinds)
        return kinds

    @asynccontextmanager
    async def take(self, kind: str, limit: int) -> AsyncIterator[PostgresTaken | None]:
        """See ``Outbox.take``."""
        async with self._lent(self._kinds) as session:
            await session.execute(_BEGIN, prepare=False)
            try:
                held = await (await session.execute(_HOLD, (kind,))).fetchone()
                yield None if held is None else PostgresTaken(self, session, await _rows(session, kind, limit))
                await session.execute("COMMIT", prepare=False)
            except BaseException:
                # Also the end of the transaction, and a late word to the server cannot hit the next borrower's.
                await session.close()
                raise

    async def news(self) -> None:
        """See ``Outbox.news``."""
        if self._listening is None or self._listening.closed:
            self._listening = await self._called()
        try:
            with translated(self.shown):
                async for _ in self._listening.notifies(timeout=self.poll, stop_after=1):
                    pass
        except BaseException:
            await self._hang_up()  # a connection whose end was not heard would tell of it the next time
            raise

    async def expire(self, before: int, limit: int) -> int:
        """See ``Outbox.expire``."""
        async with self._lent(self._chores) as session:
            return (await session.execute(_EXPIRE, (before, limit))).rowcount

    async def backlog(self) -> list[Backlog]:
        """See ``Outbox.backlog``."""
        async with self._lent(self._chores) as session:
            rows = await (await session.execute(BACKLOG)).fetchall()
        return [Backlog(kind, int(waiting), oldest, int(parked)) for kind, waiting, oldest, parked in rows]

    async def parked(self, limit: int) -> list[Parked]:
        """See ``Outbox.parked``."""
        async with self._lent(self._chores) as session:
            return [Parked(*row) for row in await (await session.execute(_LIST, (limit,))).fetchall()]

    async def retry(self, job_ids: Sequence[str] | None) -> list[str]:
        """See ``Outbox.retry``."""
        asked = None if job_ids is None else [statements.storable(job_id) for job_id in job_ids]
        async with self._lent(self._chores) as session:
            rows = await (await session.execute(_RETRY, {"ids": asked})).fetchall()
            await session.execute(f"NOTIFY {CHANNEL}", prepare=False)
        return [job_id for (job_id,) in rows]

    def now_ms(self) -> int:
        """The instant that is written beside what was published."""
        return self._clock.now_ms()

    async def _called(self) -> Session:
        session = await self._dialer.dial()
        try:
            with translated(self.shown):
                await session.execute(f"LISTEN {CHANNEL}", prepare=False)
        except BaseException:
            await session.close()
            raise
        return session

    async def _hang_up(self) -> None:
        if self._listening is not None:
            await self._listening.close()
            self._listening = None

    @asynccontextmanager
    async def _lent(self, pool: Pool) -> AsyncIterator[Session]:
        with translated(self.shown):
            async with pool.lent() as session:
                yield session


class PostgresTaken:
    """See ``Taken``. The marks are made in the transaction that holds the kind."""

    def __init__(self, outbox: PostgresOutbox, session: Session, rows: Sequence[Waiting]) -> None:
        self.rows = rows
        self._outbox = outbox
        self._session = session

    async def settle(self, published: Sequence[int], parked: Sequence[tuple[int, str]]) -> None:
        """See ``Taken.settle``."""
        if published:
            await self._session.execute(_PUBLISHED, (self._outbox.now_ms(), list(published)))
        if parked:
            rows, reasons = zip(*parked, strict=True)
            await self._session.execute(_PARKED, (list(rows), [statements.storable(reason) for reason in reasons]))


async def _rows(session: Session, kind: str, limit: int) -> list[Waiting]:
    return [Waiting(*row) for row in await (await session.execute(_ROWS, (kind, limit))).fetchall()]
