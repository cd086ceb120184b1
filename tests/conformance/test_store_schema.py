"""What every store promises about its schema: made once, kept, and never mistaken for another."""

from __future__ import annotations

import asyncio

import pytest

from penstock.claims import Claim, Mark, State, Verdict
from penstock.errors import ConfigError
from tests.conformance.store_subjects import MakeStore, StoreSubject

CLAIM = Claim("credits", "job", 0, 7, 60_000)


async def test_a_store_without_a_schema_is_not_opened_and_says_what_to_run(make_store: MakeStore) -> None:
    store = make_store()
    with pytest.raises(ConfigError, match="penstock store migrate"):
        await store.open()


async def test_status_also_answers_when_the_schema_is_missing(make_store: MakeStore) -> None:
    status = await make_store().status()
    assert (status.schema, dict(status.records), status.oldest) == (None, {}, None)
    assert status.newest_schema >= 1


async def test_migrating_twice_makes_the_schema_once_and_keeps_what_is_remembered(make_store: MakeStore) -> None:
    store = make_store()
    newest = (await store.status()).newest_schema
    assert await store.migrate() == (None, newest)
    await store.open()
    await store.claim([CLAIM])
    await store.mark([Mark(CLAIM, State.DONE, b"5")])
    assert await make_store().migrate() == (newest, newest)
    [answer] = await store.claim([CLAIM])
    assert (answer.verdict, answer.result) == (Verdict.DONE, b"5")


async def test_any_number_may_migrate_at_once(make_store: MakeStore) -> None:
    results = await asyncio.gather(*(make_store().migrate() for _ in range(6)))
    newest = results[0][1]
    assert sorted(results, key=str) == sorted([(None, newest)] + [(newest, newest)] * 5, key=str)
    store = make_store()
    await store.open()
    assert (await store.status()).schema == newest


async def test_a_newer_schema_is_neither_opened_nor_migrated(
    make_store: MakeStore, store_subject: StoreSubject
) -> None:
    store = make_store()
    _, newest = await store.migrate()
    store_subject.set_version(newest + 1)
    for step in (store.open, store.migrate):
        with pytest.raises(ConfigError, match=r"newer than this penstock knows .*update"):
            await step()
    assert (await store.status()).schema == newest + 1


async def test_a_schema_that_went_away_is_told_whatever_is_asked(
    make_store: MakeStore, store_subject: StoreSubject
) -> None:
    store = make_store()
    await store.migrate()
    await store.open()
    await store.claim([CLAIM])
    store_subject.drop()
    questions = (
        lambda: store.claim([CLAIM]),
        lambda: store.mark([Mark(CLAIM, State.DONE)]),
        lambda: store.renew([CLAIM]),
        lambda: store.release([CLAIM]),
        lambda: store.expire(0, 10),
        lambda: store.records("job"),
        lambda: store.forget("job"),
    )
    for question in questions:
        with pytest.raises(ConfigError, match="penstock store migrate"):
            await question()
    await store.migrate()
    [answer] = await store.claim([CLAIM])
    assert answer.verdict is Verdict.FRESH


async def test_a_store_may_be_closed_twice_and_unopened(make_store: MakeStore) -> None:
    unopened = make_store()
    await unopened.close()
    store = make_store()
    await store.migrate()
    await store.open()
    await store.close()
    await store.close()
