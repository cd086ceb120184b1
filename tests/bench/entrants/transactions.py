"""The transactions of effects once written by hand, on each store in every way that a careful person may choose."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing

import uvloop
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

from penstock.claims import StoreUrl
from penstock.connect import STORE_VARIABLE
from tests.bench.cells import Cell
from tests.bench.entrants.common import LIMIT, Figures
from tests.bench.entrants.crowd import Count, together
from tests.bench.entrants.penstock_stores import UPDATE, account_of

MARK = "INSERT INTO marks (job_id, at) VALUES (%s, %s) ON CONFLICT DO NOTHING"
CLAIM = "INSERT INTO marks (job_id, at, done) VALUES (%s, %s, false) ON CONFLICT DO NOTHING"
END = "UPDATE marks SET done = true WHERE job_id = %s AND NOT done"

_LEASE_MS = 30_000
_RETENTION_S = 30 * 86_400
_BUSY = 30.0

#: What is done for a job, by its id.
Transact = Callable[[str], Awaitable[None]]
#: Opens the store at a URL for so many tasks.
Way = Callable[[str, int], AbstractAsyncContextManager[Transact]]


@asynccontextmanager
async def effects_on_postgres(url: str, tasks: int) -> AsyncIterator[Transact]:
    """A transaction each: the mark, the effect if the mark is new, the commit."""

    async with _pool(url, tasks) as pool:

        async def transact(job_id: str) -> None:
            async with pool.connection() as connection:
                if (await connection.execute(MARK, (job_id, _now()))).rowcount:
                    await connection.execute(UPDATE, (1, account_of(job_id)))

        yield transact


@asynccontextmanager
async def leases_on_postgres(url: str, tasks: int) -> AsyncIterator[Transact]:
    """Two statements each, by themselves: the claim, and the mark."""

    async with _pool(url, tasks) as pool:

        async def transact(job_id: str) -> None:
            async with pool.connection() as connection:
                if not (await connection.execute(CLAIM, (job_id, _now()))).rowcount:
                    return
            async with pool.connection() as connection:
                await connection.execute(END, (job_id,))

        yield transact


@asynccontextmanager
async def _pool(url: str, tasks: int) -> AsyncIterator[AsyncConnectionPool]:
    async with AsyncConnectionPool(url, min_size=tasks, max_size=tasks, open=False) as pool:
        await pool.wait()
        yield pool


@asynccontextmanager
async def leases_on_redis(url: str, _tasks: int) -> AsyncIterator[Transact]:
    """Two commands each: the claim unless there is one, and the result in its place."""
    async with Redis.from_url(url) as client:

        async def transact(job_id: str) -> None:
            if await client.set(f"job:{job_id}", "running", nx=True, px=_LEASE_MS):
                await client.set(f"job:{job_id}", "done", xx=True, ex=_RETENTION_S)

        yield transact


@asynccontextmanager
async def effects_on_sqlite_in_a_thread(url: str, _tasks: int) -> AsyncIterator[Transact]:
    """A transaction each, all of them in one thread, so that the loop stays free."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as thread, closing(_opened(url)) as file:

        async def transact(job_id: str) -> None:
            await loop.run_in_executor(thread, _transact, file, job_id)

        yield transact


@asynccontextmanager
async def effects_on_sqlite_in_the_loop(url: str, _tasks: int) -> AsyncIterator[Transact]:
    """A transaction each, one after the other, and nothing else meanwhile."""
    with closing(_opened(url)) as file:

        async def transact(job_id: str) -> None:
            _transact(file, job_id)

        yield transact


def _opened(url: str) -> sqlite3.Connection:
    path = StoreUrl.parse(url).path
    file = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    file.execute("PRAGMA journal_mode = WAL")
    file.execute("PRAGMA synchronous = FULL")
    return file


def _transact(file: sqlite3.Connection, job_id: str) -> None:
    file.execute("BEGIN IMMEDIATE")
    if file.execute(MARK.replace("%s", "?"), (job_id, _now())).rowcount:
        file.execute(UPDATE.replace("%s", "?"), (1, account_of(job_id)))
    file.execute("COMMIT")


def _now() -> int:
    return time.time_ns() // 1_000_000


#: How a strength is had on a store: the fastest way counts.
_WAYS: dict[tuple[str, str], tuple[Way, ...]] = {
    ("effect", "postgres"): (effects_on_postgres,),
    ("lease", "postgres"): (leases_on_postgres,),
    ("lease", "redis"): (leases_on_redis,),
    ("effect", "sqlite"): (effects_on_sqlite_in_a_thread, effects_on_sqlite_in_the_loop),
}

#: Works off its process's share of a count by a way of having transactions, with so many tasks.
Play = Callable[[Transact, int, Count], Awaitable[None]]


def best(cell: Cell, total: int, play: Play) -> Figures:
    """Let the processes of *cell* do *total* transactions, shared out to the ways of having them."""
    ways = _WAYS[cell.strength, cell.store]
    found = {way.__name__: _played(cell, total // len(ways), way, play) for way in ways}
    fastest = max(found.values(), key=lambda figures: figures["rate"])
    return {**{name: figures["rate"] for name, figures in found.items()}, **fastest}


def _played(cell: Cell, total: int, way: Way, play: Play) -> Figures:
    async def main(count: Count) -> None:
        async with way(os.environ[STORE_VARIABLE], cell.slots) as transact:
            await asyncio.wait_for(play(transact, cell.slots, count), LIMIT)

    return together(cell.processes, total, lambda count: uvloop.run(main(count)))
