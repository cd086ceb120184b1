"""The same transactions written by hand: no Penstock, no broker, nothing but the database's driver."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial

import uvloop
from psycopg_pool import AsyncConnectionPool
from redis.asyncio import Redis

from penstock.claims import StoreUrl
from penstock.clock import new_job_id
from penstock.connect import STORE_VARIABLE
from tests.bench.cells import COMPARED, Cell
from tests.bench.entrants.common import LIMIT, Figures, run_role
from tests.bench.entrants.crowd import Count, together
from tests.bench.entrants.penstock_stores import UPDATE, account_of

MARK = "INSERT INTO marks (job_id, at) VALUES (%s, %s) ON CONFLICT DO NOTHING"
CLAIM = "INSERT INTO marks (job_id, at, done) VALUES (%s, %s, false) ON CONFLICT DO NOTHING"
END = "UPDATE marks SET done = true WHERE job_id = %s AND NOT done"

_LEASE_MS = 30_000
_RETENTION_S = 30 * 86_400
_BUSY = 30.0

Ids = Iterator[str]


async def effects_on_postgres(url: str, tasks: int, ids: Ids, count: Count) -> None:
    """A transaction each: the mark, the effect if the mark is new, the commit."""

    async def transact(pool: AsyncConnectionPool, job_id: str) -> None:
        async with pool.connection() as connection:
            if (await connection.execute(MARK, (job_id, _now()))).rowcount:
                await connection.execute(UPDATE, (1, account_of(job_id)))

    await _on_postgres(url, tasks, ids, count, transact)


async def leases_on_postgres(url: str, tasks: int, ids: Ids, count: Count) -> None:
    """Two statements each, by themselves: the claim, and the mark."""

    async def transact(pool: AsyncConnectionPool, job_id: str) -> None:
        async with pool.connection() as connection:
            if not (await connection.execute(CLAIM, (job_id, _now()))).rowcount:
                return
        async with pool.connection() as connection:
            await connection.execute(END, (job_id,))

    await _on_postgres(url, tasks, ids, count, transact)


async def _on_postgres(
    url: str, tasks: int, ids: Ids, count: Count, transact: Callable[[AsyncConnectionPool, str], Awaitable[None]]
) -> None:
    async with AsyncConnectionPool(url, min_size=tasks, max_size=tasks, open=False) as pool:
        await pool.wait()
        await _lanes(tasks, ids, count, partial(transact, pool))


async def leases_on_redis(url: str, tasks: int, ids: Ids, count: Count) -> None:
    """Two commands each: the claim unless there is one, and the result in its place."""
    async with Redis.from_url(url) as client:

        async def transact(job_id: str) -> None:
            if await client.set(f"job:{job_id}", "running", nx=True, px=_LEASE_MS):
                await client.set(f"job:{job_id}", "done", xx=True, ex=_RETENTION_S)

        await _lanes(tasks, ids, count, transact)


async def effects_on_sqlite_in_a_thread(url: str, tasks: int, ids: Ids, count: Count) -> None:
    """A transaction each, all of them in one thread, so that the loop stays free."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as thread, closing(_opened(url)) as file:
        await _lanes(tasks, ids, count, lambda job_id: loop.run_in_executor(thread, _transact, file, job_id))


async def effects_on_sqlite_in_the_loop(url: str, _tasks: int, ids: Ids, count: Count) -> None:
    """A transaction each, one after the other, and nothing else meanwhile."""
    with closing(_opened(url)) as file:
        for job_id in ids:
            _transact(file, job_id)
            count.tick()


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


async def _lanes(tasks: int, ids: Ids, count: Count, transact: Callable[[str], Awaitable[None]]) -> None:
    async def lane() -> None:
        for job_id in ids:
            await transact(job_id)
            count.tick()

    await asyncio.gather(*(lane() for _ in range(tasks)))


def _now() -> int:
    return time.time_ns() // 1_000_000


#: How a strength is had on a store, in every way that a careful person may choose: the fastest one counts.
_WAYS = {
    ("effect", "postgres"): (effects_on_postgres,),
    ("lease", "postgres"): (leases_on_postgres,),
    ("lease", "redis"): (leases_on_redis,),
    ("effect", "sqlite"): (effects_on_sqlite_in_a_thread, effects_on_sqlite_in_the_loop),
}


def working(cell: Cell, way: Callable[[str, int, Ids, Count], Awaitable[None]], total: int) -> Figures:
    """The transactions of *cell*, had in one *way*."""
    share = total // cell.processes

    def play(count: Count) -> None:
        ids = iter([new_job_id() for _ in range(share)])
        uvloop.run(asyncio.wait_for(way(os.environ[STORE_VARIABLE], cell.slots, ids, count), LIMIT))

    return together(cell.processes, share * cell.processes, play)


def roles(cell: Cell) -> tuple[str, ...]:
    """The roles by which *cell*'s transactions are had, one for each way."""
    return tuple(f"{cell.name}_{way.__name__}" for way in _WAYS[cell.strength, cell.store])


ROLES = {
    role: partial(working, cell, way)
    for cell in COMPARED
    for role, way in zip(roles(cell), _WAYS[cell.strength, cell.store], strict=True)
}

if __name__ == "__main__":
    run_role(ROLES)
