"""Effects on SQLite that are committed together stand and fall each for itself, and none waits for ever."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from penstock.claims import Claim, State, StoreUrl, new_token
from penstock.stores.sqlite import SqliteStore
from tests.support.once_apps import INSERT, ledger, with_a_ledger


@pytest.fixture
async def url(tmp_path: Path) -> str:
    """A store with a ledger."""
    return await with_a_ledger(f"sqlite:///{tmp_path}/store.db")


class HandlerError(Exception):
    """What a handler raises."""


async def add(store: SqliteStore, job: str, *, fail: bool = False) -> None:
    """Claim *job* and have its effect, or fail after it."""
    claim = Claim("q", job, 0, new_token(), 30_000)
    await store.claim([claim])
    async with store.effect() as effect:
        await effect.transaction.execute(INSERT, (job, 1, 1))
        await asyncio.sleep(0)
        if fail:
            raise HandlerError
        assert await effect.complete(claim, None)


async def test_one_that_fails_takes_none_of_those_along_that_are_committed_with_it(url: str) -> None:
    store = SqliteStore(StoreUrl.parse(url))
    await store.open()
    ends = await asyncio.gather(*(add(store, f"job-{n}", fail=n % 3 == 0) for n in range(90)), return_exceptions=True)
    assert [n for n, end in enumerate(ends) if isinstance(end, HandlerError)] == list(range(0, 90, 3))
    assert [end for end in ends if end is not None and not isinstance(end, HandlerError)] == []
    assert (await store.records("job-3"))[0].state is State.RUNNING
    await store.close()
    assert await ledger(url) == Counter(f"job-{n}" for n in range(90) if n % 3)


async def test_an_effect_is_committed_though_those_who_waited_behind_it_went_away(url: str) -> None:
    store = SqliteStore(StoreUrl.parse(url))
    await store.open()
    for turn in range(50):
        first = asyncio.create_task(add(store, f"first-{turn}"))
        waiting = [asyncio.create_task(add(store, f"waits-{turn}-{n}")) for n in range(3)]
        for _ in range(turn % 25):
            await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.wait_for(asyncio.shield(first), 5)
        await asyncio.gather(*waiting, return_exceptions=True)
    await store.close()
    done = await ledger(url)
    assert {f"first-{turn}" for turn in range(50)} <= done.keys()
    assert set(done.values()) == {1}


async def test_what_was_returned_from_is_on_the_disk_for_everybody(url: str) -> None:
    store, other = SqliteStore(StoreUrl.parse(url)), SqliteStore(StoreUrl.parse(url))
    await store.open()
    await other.open()

    async def seen_elsewhere(job: str) -> bool:
        await add(store, job)
        return [record.state for record in await other.records(job)] == [State.DONE]

    assert all(await asyncio.gather(*(seen_elsewhere(f"job-{n}") for n in range(40))))
    await store.close()
    await other.close()
