"""A service's own tables in the store's database: made once, and reached outside of its jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from penstock.claims import StoreUrl
from penstock.connect import store_for
from penstock.errors import ConfigError
from penstock.storing import EffectStore, Store, Transaction, lacks_a_table

#: Asks nothing of the table itself: who may only insert into it is not to be refused.
_FOUND = {
    "sqlite": "SELECT 1 FROM sqlite_master WHERE name = %s",
    "postgresql": "SELECT 1 WHERE to_regclass(%s) IS NOT NULL",
}


def effect_store(url: StoreUrl, holds: str, *, connections: int = 16) -> EffectStore:
    """The store at *url*, not opened yet, whose transactions can write to tables; *holds* says in an error of what.

    *connections*: how many transactions may be under way at once. Raises ``ConfigError`` for a store without
    transactions.
    """
    store = store_for(url, connections=connections)
    if isinstance(store, EffectStore):
        return store
    raise ConfigError(_without_transactions(store, holds))


def tables(holds: str, make: str, *names: str) -> Callable[[Store], Awaitable[None]]:
    """A worker's *ready*: raises ``ConfigError`` while its store lacks one of the tables *names*, and
    ``StoreUnavailable``. It needs no right to read them.

    *holds* says in the error what they are for, *make* which command makes them. Safe to run at once, and to repeat.
    """

    async def ready(store: Store) -> None:
        if not isinstance(store, EffectStore):
            raise ConfigError(_without_transactions(store, holds))
        found = _FOUND[StoreUrl.parse(store.shown).scheme]
        async with store.effect() as effect:
            for name in names:
                if (await effect.transaction.execute(found, (name,))).fetchone() is None:
                    raise ConfigError(_lacking(store, holds, make))

    return ready


def _lacking(store: Store, holds: str, make: str) -> str:
    return f"{store.shown} has no table for {holds}: run {make} first"


def _without_transactions(store: Store, holds: str) -> str:
    return f"{store.shown} cannot hold {holds}: set PENSTOCK_STORE_URL to sqlite:// or postgresql://"


@asynccontextmanager
async def transaction(url: StoreUrl, holds: str) -> AsyncIterator[Transaction]:
    """A transaction in the database at *url*, committed with the block unless that raises; for a command's one look.

    Raises ``ConfigError``, ``StoreUnavailable``.
    """
    store = effect_store(url, holds)
    await store.open()
    try:
        async with store.effect() as effect:
            yield effect.transaction
    except Exception as error:
        if lacks_a_table(error):
            raise ConfigError(_lacking(store, holds, "this command with migrate")) from error
        raise
    finally:
        await store.close()


async def make_tables(
    url: StoreUrl, holds: str, lock: int, make: Callable[[Transaction, str], Awaitable[None]]
) -> None:
    """Make the store's tables at *url* and then those of *make* (transaction, scheme); safe to run twice at once.

    *lock*: a number of the service's own that nobody else locks. *make* has to be idempotent. Raises ``ConfigError``,
    ``StoreUnavailable``.
    """
    await effect_store(url, holds).migrate()
    async with transaction(url, holds) as tx:
        if url.scheme == "postgresql":
            # IF NOT EXISTS alone: who is second at the same instant gets an error there.
            await tx.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))
        await make(tx, url.scheme)
