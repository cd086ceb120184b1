"""The store in one SQLite file: for development, tests, and services whose workers share one host's disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from penstock.claims import Answer, Claim, Mark, Record, State, StoreUrl, Verdict, decide
from penstock.clock import Clock, SystemClock
from penstock.errors import ConfigError
from penstock.overlaps import Admission, Entry
from penstock.stores import schema, sqlite_overlap
from penstock.stores.sqlite_effects import BlockingSqliteEffect, SqliteEffect
from penstock.stores.sqlite_errors import is_busy, translated
from penstock.stores.sqlite_writer import FIRST_WAIT, LONGEST_WAIT, Writer, begun, roll_back
from penstock.storing import StoreStatus

T = TypeVar("T")

#: How long the file's one write lock is waited for.
BUSY = timedelta(seconds=30)

_COLUMNS = "consumer, job_id, copy, state, token, until, args_hash, result, claimed"
_FIND = f"SELECT {_COLUMNS} FROM penstock_records WHERE consumer = ? AND job_id = ?"
_TAKE = f"""INSERT INTO penstock_records ({_COLUMNS}) VALUES (?, ?, ?, 'running', ?, ?, ?, NULL, ?)
    ON CONFLICT DO UPDATE SET copy = excluded.copy, state = 'running', token = excluded.token, until = excluded.until,
        args_hash = coalesce(excluded.args_hash, args_hash), result = NULL, claimed = excluded.claimed"""
_END = """UPDATE penstock_records SET state = ?, result = ? WHERE consumer = ? AND job_id = ? AND token = ?
    AND (state = 'running' OR state = ?)"""
_LEASE = "UPDATE penstock_records SET until = ? WHERE consumer = ? AND job_id = ? AND token = ? AND state = 'running'"
_EXPIRE = """DELETE FROM penstock_records WHERE (consumer, job_id) IN (SELECT consumer, job_id FROM penstock_records
    WHERE claimed < ? AND NOT (state = 'running' AND until > ?) ORDER BY claimed LIMIT ?)"""


class SqliteStore:
    """An ``EffectStore`` in the file *url* names, in WAL mode, safe to share by processes of one host.

    SQLite lets one transaction write at a time: effects take turns, so keep such handlers short; those that wait are
    committed together. Claims are not forced to the disk, marks and effects are. *busy*: how long a lock is waited for.
    """

    def __init__(self, url: StoreUrl, *, clock: Clock | None = None, busy: timedelta = BUSY) -> None:
        self.shown = url.shown
        self._path = url.path
        self._clock = clock or SystemClock()
        self._busy = busy.total_seconds()
        self._threads_gate = threading.Lock()
        self._idle: list[sqlite3.Connection] = []  # of threads
        self._reading: sqlite3.Connection | None = None
        self._writer: Writer | None = None

    async def open(self) -> None:
        """See ``Store.open``."""
        with translated(self.shown):
            if not self._exists:
                raise ConfigError(f"{self.shown} does not exist: run penstock store migrate")
            self._reading = self._connected("NORMAL")
            self._check_schema(self._reading)
            self._writer = Writer(self._connected("NORMAL"), self._connected("FULL"), self.shown, self._busy)

    async def close(self) -> None:
        """See ``Store.close``."""
        if self._writer is not None:
            self._writer.close()
        for connection in (self._reading, *self._idle):
            if connection is not None:
                connection.close()
        self._reading = self._writer = None
        self._idle.clear()

    async def ping(self) -> None:
        """See ``Store.ping``."""
        await self._write(lambda connection: connection.execute("UPDATE penstock_schema SET version = version"))

    async def claim(self, claims: Sequence[Claim]) -> list[Answer]:
        """See ``Store.claim``."""
        return await self._write(lambda connection: [self._claim(connection, claim) for claim in claims])

    async def mark(self, marks: Sequence[Mark]) -> list[bool]:
        """See ``Store.mark``."""
        return await self._write(lambda connection: [end(connection, mark) for mark in marks], durable=True)

    async def renew(self, claims: Sequence[Claim]) -> list[bool]:
        """See ``Store.renew``."""
        now = self._clock.now_ms()
        return await self._write(lambda file: [_lease(file, claim, now + claim.lease) for claim in claims])

    async def release(self, claims: Sequence[Claim]) -> None:
        """See ``Store.release``."""
        now = self._clock.now_ms()
        await self._write(lambda connection: [_lease(connection, claim, now) for claim in claims])

    async def enter(self, entry: Entry) -> Admission:
        """See ``Store.enter``."""
        return await self._write(lambda file: sqlite_overlap.enter(file, entry, self._clock.now_ms()), durable=True)

    async def expire(self, before: int, limit: int) -> int:
        """See ``Store.expire``."""
        return await self._write(lambda connection: _expire(connection, before, self._clock.now_ms(), limit))

    async def records(self, job_id: str) -> list[Record]:
        """See ``Store.records``."""
        statement = f"SELECT {_COLUMNS} FROM penstock_records WHERE job_id = ? ORDER BY consumer"
        with translated(self.shown):
            assert self._reading is not None, _NOT_OPEN
            return [_record(row) for row in self._reading.execute(statement, (job_id,))]

    async def forget(self, job_id: str) -> int:
        """See ``Store.forget``."""
        statement = "DELETE FROM penstock_records WHERE job_id = ?"
        return await self._write(lambda file: file.execute(statement, (job_id,)).rowcount, durable=True)

    async def status(self) -> StoreStatus:
        """See ``Store.status``."""
        with translated(self.shown):
            if not self._exists:
                return StoreStatus(None, len(schema.SQLITE))
            connection = self._connected("NORMAL")
            try:
                return _status(connection)
            finally:
                connection.close()

    async def migrate(self) -> tuple[int | None, int]:
        """See ``Store.migrate``. Makes the file and its folder when they are missing."""
        with translated(self.shown):
            Path(self._path).parent.mkdir(parents=True, exist_ok=True)
            connection = self._connected("FULL")
            try:
                await asyncio.to_thread(self._begin_blocking, connection)
                return _migrate(connection)
            finally:
                connection.close()

    async def production_problems(self) -> list[str]:
        """See ``Store.production_problems``."""
        return []

    @asynccontextmanager
    async def effect(self) -> AsyncIterator[SqliteEffect]:
        """See ``EffectStore.effect``."""
        async with self._open_writer.turn() as connection:
            yield SqliteEffect(connection, self.shown)

    @contextmanager
    def blocking_effect(self) -> Iterator[BlockingSqliteEffect]:
        """See ``EffectStore.blocking_effect``."""
        with self._threads_gate:
            with translated(self.shown):
                connection = self._idle.pop() if self._idle else self._connected("FULL")
            try:
                with translated(self.shown):
                    self._begin_blocking(connection)
                yield BlockingSqliteEffect(connection, self.shown)
                with translated(self.shown):
                    connection.commit()
            finally:
                roll_back(connection)
                self._idle.append(connection)

    def _claim(self, connection: sqlite3.Connection, claim: Claim) -> Answer:
        now = self._clock.now_ms()
        row = connection.execute(_FIND, claim.key).fetchone()
        record = None if row is None else _record(row)
        verdict = decide(record, claim, now)
        if verdict is Verdict.FRESH:
            values = (*claim.key, claim.copy, claim.token, now + claim.lease, claim.args_hash, now)
            connection.execute(_TAKE, values)
            return Answer(verdict, now + claim.lease)
        assert record is not None
        return Answer(verdict, record.until, record.result)

    async def _write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        return await self._open_writer.write(work, durable=durable)

    @property
    def _open_writer(self) -> Writer:
        assert self._writer is not None, _NOT_OPEN
        return self._writer

    def _begin_blocking(self, connection: sqlite3.Connection) -> None:
        deadline, wait = time.monotonic() + self._busy, FIRST_WAIT
        while not begun(connection, deadline):
            time.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    @property
    def _exists(self) -> bool:
        return Path(self._path).exists()

    def _connected(self, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        deadline = time.monotonic() + self._busy
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:  # somebody else is changing it this very moment
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
                time.sleep(LONGEST_WAIT)
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        return connection

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        version, newest = _version(connection), len(schema.SQLITE)
        if version is None or version < newest:
            raise ConfigError(f"{self.shown} has schema {version or 'none'}, not {newest}: run penstock store migrate")
        if version > newest:
            raise ConfigError(
                f"{self.shown} has schema {version}, newer than this penstock knows ({newest}): update it"
            )


_NOT_OPEN = "the store is not open"


def end(connection: sqlite3.Connection, mark: Mark) -> bool:
    """Write *mark* into the transaction that is open; False when its claim does not hold the record any more."""
    result = None if mark.result is None else mark.result.decode()
    values = (mark.state, result, *mark.claim.key, mark.claim.token, mark.state)
    return connection.execute(_END, values).rowcount == 1


def _expire(connection: sqlite3.Connection, before: int, now: int, limit: int) -> int:
    forgotten = connection.execute(_EXPIRE, (before, now, limit)).rowcount
    sqlite_overlap.expire(connection, before, limit)
    return forgotten


def _lease(connection: sqlite3.Connection, claim: Claim, until: int) -> bool:
    return connection.execute(_LEASE, (until, *claim.key, claim.token)).rowcount == 1


def _record(row: tuple[str, str, int, str, int, int, str | None, str | None, int]) -> Record:
    consumer, job_id, copy, state, token, until, args_hash, result, claimed = row
    kept = None if result is None else result.encode()
    return Record(consumer, job_id, copy, State(state), token, until, args_hash, kept, claimed)


def _version(connection: sqlite3.Connection) -> int | None:
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'penstock_schema'").fetchone()
    row = connection.execute("SELECT version FROM penstock_schema").fetchone() if found else None
    return None if row is None else int(row[0])


def _migrate(connection: sqlite3.Connection) -> tuple[int | None, int]:
    before, newest = _version(connection), len(schema.SQLITE)
    if before is not None and before > newest:
        raise ConfigError(f"the schema has version {before}, newer than this penstock knows ({newest}): update it")
    for statement in (schema.VERSION_TABLE, *schema.missing(schema.SQLITE, before), "DELETE FROM penstock_schema"):
        connection.execute(statement)
    connection.execute("INSERT INTO penstock_schema VALUES (?)", (newest,))
    connection.commit()
    return before, newest


def _status(connection: sqlite3.Connection) -> StoreStatus:
    version = _version(connection)
    if version is None:
        return StoreStatus(None, len(schema.SQLITE))
    counts = dict(connection.execute("SELECT state, count(*) FROM penstock_records GROUP BY state"))
    (oldest,) = connection.execute("SELECT min(claimed) FROM penstock_records").fetchone()
    return StoreStatus(version, len(schema.SQLITE), counts, oldest)
