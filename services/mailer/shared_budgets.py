"""Budgets in the store's database: all mailers on it keep a domain's rate together, however many there are."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from penstock import StoreUnavailable, Transaction
from penstock.pacing.rate_limits import Standing, decide
from penstock.service_tables import tables
from penstock.storing import EffectStore

#: Seconds since 1970 by the database's own clock: hosts disagree.
_NOW = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch FROM clock_timestamp())::float8",
}
_TABLE = """CREATE TABLE IF NOT EXISTS mailer_domains (
        domain TEXT PRIMARY KEY,
        used DOUBLE PRECISION NOT NULL,
        line DOUBLE PRECISION NOT NULL
    )"""
_MADE = tables("MAILER_THROTTLE", "python -m services.mailer migrate", "mailer_domains")
#: Where a domain stands, which nobody else learns or changes before the end of the transaction.
_STANDING = """INSERT INTO mailer_domains (domain, used, line) VALUES (%s, 0, 0)
    ON CONFLICT (domain) DO UPDATE SET domain = excluded.domain RETURNING used, line, {now}"""
_STANDS = "UPDATE mailer_domains SET used = %s, line = %s WHERE domain = %s"
_FORGET = "DELETE FROM mailer_domains WHERE used < {now} - 3600 AND line < {now} - 3600"
#: The row is held until the commit; what a crash of the server forgets of it is a second's worth of mails.
_NOT_FORCED = "SET LOCAL synchronous_commit = off"


class SharedBudgets:
    """See ``Budgets``; of all processes whose store is the same database. The store is closed with the block.

    It is opened with the block too, or when it is first needed, should it be away by then.
    """

    def __init__(self, store: EffectStore, scheme: str, roll: Callable[[], float] = random.random) -> None:
        self._store = store
        self._scheme = scheme
        self._roll = roll
        self._opening = asyncio.Lock()
        self._opened = False

    async def __aenter__(self) -> Self:
        with suppress(StoreUnavailable):  # the worker waits for it as well
            await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._store.close()

    async def ask(self, name: str, rate: float, *, returning: bool) -> float:
        """See ``Budgets.ask``."""
        await self._open()
        async with self._store.effect() as effect:
            tx = effect.transaction
            if self._scheme == "postgresql":
                await tx.execute(_NOT_FORCED)
            row = (await tx.execute(self._sql(_STANDING), (name,))).fetchone()
            assert row is not None, "an upsert gives its row back"
            used, line, now = row
            stands, wait = decide(Standing(used, line), now, rate, returning=returning, roll=self._roll())
            await tx.execute(_STANDS, (stands.used, stands.line, name))
        return wait

    async def _open(self) -> None:
        """Connect and look for the table. Raises ``StoreUnavailable``, and ``ConfigError`` when it is missing."""
        async with self._opening:
            if self._opened:
                return
            await self._store.open()
            try:
                await self._check()
            except BaseException:
                await self._store.close()
                raise
            self._opened = True

    async def _check(self) -> None:
        await _MADE(self._store)
        async with self._store.effect() as effect:
            await effect.transaction.execute(self._sql(_FORGET))

    def _sql(self, statement: str) -> str:
        return statement.format(now=_NOW[self._scheme])


async def make_tables(tx: Transaction) -> None:
    """Make what is missing; the same on SQLite and PostgreSQL. Idempotent."""
    await tx.execute(_TABLE)
