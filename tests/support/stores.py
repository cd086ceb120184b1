"""A store that is open for the length of a block."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstock.claims import StoreUrl
from penstock.connect import store_for
from penstock.storing import EffectStore


@asynccontextmanager
async def opened(url: StoreUrl) -> AsyncIterator[EffectStore]:
    """The store at *url*, which is migrated."""
    store = store_for(url)
    assert isinstance(store, EffectStore)
    await store.open()
    try:
        yield store
    finally:
        await store.close()
