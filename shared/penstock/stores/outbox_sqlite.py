"""The outbox in a SQLite file, as relays use it: kinds are held by a lease, never by the file's one write lock."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from penstock.claims import StoreUrl, new_token
from penstock.clock import Clock, SystemClock
from penstock.errors import ConfigError, StoreUnavailable
from penstock.relaying import MAX_BYTES, Backlog, Parked, Waiting
from penstock.stores import schema
from penstock.stores.outbox_statements import BACKLOG, COLUMNS, KINDS, WAITS, check_version
from penstock.stores.sqlite_errors import translated

T = TypeVar("T")

#: How long a kind stays with a relay that gives no sign of life.
LEASE = timedelta(seconds=3)

#: Seconds for which the file's write lock is waited for.
_BUSY = 30.0

_HOLD = """INSERT INTO penstock_outbox_kinds (kind, relay, until) VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET relay = excluded.relay, until = excluded.until WHERE until <= ?"""
_RENEW = "UPDATE penstock_outbox_kinds SET until = ? WHERE kind = ? AND relay = ?"
#: The index is named: without statistics SQLite may prefer the primary key, and would read every published row.
_ROWS = f"""SELECT {COLUMNS.replace("body", "CAST(body AS BLOB)")}
    FROM penstock_outbox INDEXED BY penstock_outbox_waiting WHERE kind = ? AND {WAITS} ORDER BY id LIMIT ?"""
_PUBLISHED = "UPDATE penstock_outbox SET published = ? WHERE id = ? AND published IS NULL"
_PARKED = f"UPDATE penstock_outbox SET parked = ? WHERE id = ? AND {WAITS}"
_EXPIRE = """DELETE FROM penstock_outbox WHERE id IN
    (SELECT id FROM penstock_outbox WHERE published < ? ORDER BY published LIMIT ?)"""
_LIST = "SELECT job_id, kind, parked, created FROM penstock_outbox WHERE parked IS NOT NULL ORDER BY id LIMIT ?"
_RETRY = """UPDATE penstock_outbox SET parked = NULL WHERE parked IS NOT NULL
    AND (?1 IS NULL OR job_id IN (SELECT value FROM json_each(?1))) RETURNING job_id"""


class SqliteOutbox:
    """An ``Outbox`` in the file *url* names, for relays on its host. Everything runs in one thread of its own.

    Marks are not forced to the disk: what a power failure takes back is published again. *lease*: see ``LEASE``.
    """

    poll = 0.1

    def __init__(self, url: StoreUrl, *, clock: Clock | None = None, lease: timedelta = LEASE) -> None:
        self.shown = url.shown
        self._path = url.path
        self._clock = clock or SystemClock()
        self._lease = lease
        self._thread = ThreadPoolExecutor(1, "outbox")
        self._file: sqlite3.Connection | None = None

    async def open(self) -> None:
        """See ``Outbox.open``."""
        if not self._exists:
            raise ConfigError(f"{self.shown} does not exist: run penstock store migrate")
        version = await self._run(_version)
        check_version(version, len(schema.SQLITE), self.shown)

    async def close(self) -> None:
        """See ``Outbox.close``."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._file is not None:
            self._file.close()
            self._file = None

    async def waiting(self) -> list[str]:
        """See ``Outbox.waiting``."""
        return await self._run(lambda file: [kind for (kind,) in file.execute(KINDS)])

    @asynccontextmanager
    async def take(self, kind: str, limit: int) -> AsyncIterator[SqliteTaken | None]:
        """See ``Outbox.take``."""
        token = new_token()
        rows = await self._run(lambda file: self._taken(file, kind, token, limit))
        if rows is None:
            yield None
            return
        renewing = asyncio.create_task(self._renew_for_ever(kind, token))
        try:
            yield SqliteTaken(self, rows)
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            with suppress(StoreUnavailable):  # the lease ends by itself
                await self.write(lambda file: file.execute(_RENEW, (0, kind, token)))

    async def settle(self, published: Sequence[int], parked: Sequence[tuple[int, str]]) -> None:
        """See ``Taken.settle``. What the broker has confirmed is so, whoever holds the kind by now."""
        now = self._clock.now_ms()

        def mark(file: sqlite3.Connection) -> None:
            file.executemany(_PUBLISHED, [(now, row) for row in published])
            file.executemany(_PARKED, [(reason, row) for row, reason in parked])

        await self.write(mark)

    async def news(self) -> None:
        """See ``Outbox.news``: nobody says anything, so it is time that passes."""
        await asyncio.sleep(self.poll)

    async def expire(self, before: int, limit: int) -> int:
        """See ``Outbox.expire``."""
        return await self.write(lambda file: file.execute(_EXPIRE, (before, limit)).rowcount)

    async def backlog(self) -> list[Backlog]:
        """See ``Outbox.backlog``."""
        return await self._run(lambda file: [Backlog(*row) for row in file.execute(BACKLOG)])

    async def parked(self, limit: int) -> list[Parked]:
        """See ``Outbox.parked``."""
        return await self._run(lambda file: [Parked(*row) for row in file.execute(_LIST, (limit,))])

    async def retry(self, job_ids: Sequence[str] | None) -> list[str]:
        """See ``Outbox.retry``."""
        asked = None if job_ids is None else json.dumps(list(job_ids))
        return await self.write(lambda file: [job_id for (job_id,) in file.execute(_RETRY, (asked,))])

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What *work* returns, done in one short transaction."""

        def alone(file: sqlite3.Connection) -> T:
            with _transaction(file):
                return work(file)

        return await self._run(alone)

    def _taken(self, file: sqlite3.Connection, kind: str, token: int, limit: int) -> list[Waiting] | None:
        now = self._clock.now_ms()
        with _transaction(file):
            held = file.execute(_HOLD, (kind, token, now + self._milliseconds, now)).rowcount == 1
        return _rows(file, kind, limit) if held else None

    async def _renew_for_ever(self, kind: str, token: int) -> None:
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            until = self._clock.now_ms() + self._milliseconds
            with suppress(StoreUnavailable):
                await self.write(lambda file: file.execute(_RENEW, (until, kind, token)))  # noqa: B023 - awaited here

    @property
    def _exists(self) -> bool:
        return Path(self._path).exists()

    @property
    def _milliseconds(self) -> int:
        return self._lease // timedelta(milliseconds=1)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with translated(self.shown):
            return await asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._opened()))

    def _opened(self) -> sqlite3.Connection:
        if self._file is None:
            self._file = sqlite3.connect(self._path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA synchronous = NORMAL")
        return self._file


class SqliteTaken:
    """See ``Taken``."""

    def __init__(self, outbox: SqliteOutbox, rows: Sequence[Waiting]) -> None:
        self.rows = rows
        self._outbox = outbox

    async def settle(self, published: Sequence[int], parked: Sequence[tuple[int, str]]) -> None:
        """See ``Taken.settle``."""
        await self._outbox.settle(published, parked)


@contextmanager
def _transaction(file: sqlite3.Connection) -> Iterator[None]:
    file.execute("BEGIN IMMEDIATE")
    try:
        yield
        file.execute("COMMIT")
    finally:
        if file.in_transaction:
            file.execute("ROLLBACK")


def _rows(file: sqlite3.Connection, kind: str, limit: int) -> list[Waiting]:
    """The oldest waiting rows, until they are enough in number or in bytes."""
    rows: list[Waiting] = []
    size = 0
    with closing(file.execute(_ROWS, (kind, limit))) as found:  # an unread rest would keep the file from shrinking
        for values in found:
            rows.append(Waiting(*values))
            size += len(rows[-1].body)
            if size >= MAX_BYTES:
                break
    return rows


def _version(file: sqlite3.Connection) -> int | None:
    found = file.execute("SELECT 1 FROM sqlite_master WHERE name = 'penstock_schema'").fetchone()
    row = file.execute("SELECT version FROM penstock_schema").fetchone() if found else None
    return None if row is None else int(row[0])
