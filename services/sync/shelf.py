"""Where the sync keeps what it pulled, in the store's database: items by their keys, and how far each source is.

A page is kept in one transaction with the move to the next one and the job that asks for it, and only from the place it
was asked for at: whatever is killed or doubled, nothing is left out and nothing is moved over twice. The transaction
begins after the API has answered: SQLite lets one write at a time, and nobody is to wait for somebody else's API.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

from penstock import Transaction, outbox
from penstock.storing import EffectStore
from penstock_jobs import SYNC_PULL, SyncPull
from services.sync.ports import Page, Place

#: The tables there are.
TABLES = ("sync_sources", "sync_items")

_TABLES = (
    """CREATE TABLE IF NOT EXISTS sync_sources (
        source TEXT PRIMARY KEY,
        position BIGINT NOT NULL DEFAULT 0,
        next_page TEXT,
        etag TEXT,
        pulled TIMESTAMPTZ
    )""",
    """CREATE TABLE IF NOT EXISTS sync_items (
        source TEXT NOT NULL,
        item TEXT NOT NULL,
        body TEXT NOT NULL,
        pulled TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
        PRIMARY KEY (source, item)
    )""",
    "CREATE INDEX IF NOT EXISTS sync_items_pulled ON sync_items (pulled)",
)
_PLACE = "SELECT position, next_page, etag FROM sync_sources WHERE source = %s"
_BEGIN = "INSERT INTO sync_sources (source) VALUES (%s) ON CONFLICT (source) DO NOTHING"
_MOVE = """UPDATE sync_sources SET position = position + 1, next_page = %s, etag = %s, pulled = CURRENT_TIMESTAMP
    WHERE source = %s AND position = %s"""
_KEEP = "INSERT INTO sync_items (source, item, body) VALUES"
_OVER = "ON CONFLICT (source, item) DO UPDATE SET body = excluded.body, pulled = CURRENT_TIMESTAMP"
_STATUS = """SELECT source, position, next_page, pulled, (SELECT count(*) FROM sync_items i WHERE i.source = s.source)
    FROM sync_sources s ORDER BY source"""
_REWIND = "UPDATE sync_sources SET position = position + 1, next_page = NULL, etag = NULL WHERE source = %s"

#: Items in one statement: SQLite takes 32,766 parameters in one, 999 before 3.32.
_AT_ONCE = 300


class DatabaseShelf:
    """See ``Shelf``. The store is opened when it is first needed, and closed with the block."""

    def __init__(self, store: EffectStore) -> None:
        self._store = store
        self._opening = asyncio.Lock()
        self._opened = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.close()

    async def place(self, source: str) -> Place:
        """See ``Shelf.place``."""
        await self._open()
        async with self._store.effect() as effect:
            row = (await effect.transaction.execute(_PLACE, (source,))).fetchone()
        return Place() if row is None else Place(*row)

    async def keep(self, source: str, place: Place, page: Page, *, number: int | None) -> bool:
        """See ``Shelf.keep``."""
        await self._open()
        async with self._store.effect() as effect:
            tx = effect.transaction
            if not await _moved(tx, source, place, page):
                return False
            await _kept(tx, source, list(page.items.items()))
            if number is not None:
                following = SyncPull(source=source, position=place.position + 1, page=number)
                await outbox.add(tx, SYNC_PULL, following, id=f"sync:{source}:{place.position + 1}")
        return True

    async def ask_for(self, sources: Mapping[str, str], expires: timedelta) -> None:
        """See ``Shelf.ask_for``."""
        await self._open()
        async with self._store.effect() as effect:
            for source, job_id in sources.items():
                await outbox.add(effect.transaction, SYNC_PULL, SyncPull(source=source), id=job_id, expires=expires)

    async def _open(self) -> None:
        async with self._opening:
            if not self._opened:
                await self._store.open()
                self._opened = True


async def make_tables(tx: Transaction, _scheme: str) -> None:
    """Make what is missing; the same on SQLite and PostgreSQL. Idempotent."""
    for statement in _TABLES:
        await tx.execute(statement)


async def status(tx: Transaction) -> list[tuple[str, int, str | None, object, int]]:
    """Of each source that was ever pulled: name, pages, next page, when last, items."""
    return [(*row,) for row in (await tx.execute(_STATUS)).fetchall()]


async def rewind(tx: Transaction, source: str) -> bool:
    """Let *source* be pulled from its first page again; False when it never was. Jobs that are under way do nothing."""
    return (await tx.execute(_REWIND, (source,))).rowcount > 0


async def _moved(tx: Transaction, source: str, place: Place, page: Page) -> bool:
    """Move *source* on, unless somebody else did: who comes second here waits for the first, and finds it gone."""
    if place.position == 0:
        await tx.execute(_BEGIN, (source,))
    # The last page is asked for again: it grows, or gets a next one.
    there = (page.following, None) if page.following is not None else (place.cursor, page.etag)
    return (await tx.execute(_MOVE, (*there, source, place.position))).rowcount == 1


async def _kept(tx: Transaction, source: str, items: list[tuple[str, str]]) -> None:
    for first in range(0, len(items), _AT_ONCE):
        some = items[first : first + _AT_ONCE]
        values = [value for item, body in some for value in (source, item, body)]
        await tx.execute(f"{_KEEP} {', '.join(['(%s, %s, %s)'] * len(some))} {_OVER}", values)
