"""Ada's account in a PostgreSQL database: the effect by which tests tell whether a job happened once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import psycopg

from penstock.claims import Claim, StoreUrl
from penstock.stores.postgres import PostgresStore
from penstock.stores.postgres_connections import PATIENCE

#: A patience that is soon at its end, and long enough for a machine under load.
BRIEFLY = timedelta(seconds=2)

ADD = "UPDATE accounts SET credit = credit + 5 WHERE owner = 'ada'"


@asynccontextmanager
async def opened(url: str, *, connections: int = 16, patience: timedelta = PATIENCE) -> AsyncIterator[PostgresStore]:
    """An open store in the database at *url*, beside Ada's account with nothing on it."""
    with psycopg.connect(url, autocommit=True) as outside:
        outside.execute("CREATE TABLE IF NOT EXISTS accounts (owner text PRIMARY KEY, credit integer NOT NULL)")
        outside.execute("INSERT INTO accounts VALUES ('ada', 0) ON CONFLICT DO NOTHING")
    store = PostgresStore(StoreUrl.parse(url), connections=connections, patience=patience)
    await store.migrate()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def credit(url: str) -> int:
    """What is on Ada's account."""
    with psycopg.connect(url) as outside:
        [[found]] = outside.execute("SELECT credit FROM accounts WHERE owner = 'ada'").fetchall()
    return int(found)


async def run(store: PostgresStore, claim: Claim) -> None:
    """Add 5 to Ada's credit, and complete the job."""
    async with store.effect() as effect:
        await effect.transaction.execute(ADD)
        assert await effect.complete(claim, None)


def run_blocking(store: PostgresStore, claim: Claim) -> None:
    """As ``run``."""
    with store.blocking_effect() as effect:
        effect.transaction.execute(ADD)
        assert effect.complete(claim, None)
