"""Each conformance test runs against every broker, or every store, that must pass it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock.clock import Clock
from penstock.storing import EffectStore, Store
from penstock.testing.clock import ManualClock
from tests.conformance.pika_subject import PikaSubject
from tests.conformance.store_subjects import (
    EffectSubject,
    MakeStore,
    PostgresSubject,
    RedisSubject,
    SqliteSubject,
    StoreSubject,
)
from tests.conformance.subjects import LinkBroker, MemorySubject
from tests.support.brokers import CHOSEN


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The broker in memory has no version: it is tested once, not once for each RabbitMQ."""
    again = {item for item in items if _is_again(item)}
    config.hook.pytest_deselected(items=list(again))
    items[:] = [item for item in items if item not in again]


def _is_again(item: pytest.Item) -> bool:
    chosen: dict[str, object] = item.callspec.params if hasattr(item, "callspec") else {}
    return chosen.get("link_broker") == "memory" and chosen["broker_version"] != CHOSEN[0]


@pytest.fixture(params=["memory", "pika"])
async def link_broker(
    request: pytest.FixtureRequest,
    broker_version: str,  # noqa: ARG001 - the fixtures asked for by name below need it
) -> AsyncIterator[LinkBroker]:
    """A broker with nothing declared on it; by pika, of every version that is chosen."""
    if request.param == "memory":
        yield MemorySubject()
        return
    subject = PikaSubject(request.getfixturevalue("vhost_url"))  # asked for here, so that memory needs no broker
    yield subject
    await subject.close()


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def store_subject(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSubject:
    """A place for a store, with nothing in it."""
    if request.param == "redis":
        return RedisSubject(request.getfixturevalue("redis_url"))
    return _effect_subject(request, tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def effect_subject(request: pytest.FixtureRequest, tmp_path: Path) -> EffectSubject:
    """A place for a store that can hold effects, with nothing in it."""
    return _effect_subject(request, tmp_path)


def _effect_subject(request: pytest.FixtureRequest, tmp_path: Path) -> EffectSubject:
    # Servers are asked for here, so that a test on the file alone needs none.
    if request.param == "postgres":
        return PostgresSubject(request.getfixturevalue("postgres_url"))
    return SqliteSubject(str(tmp_path / "store.db"))


@pytest.fixture
async def make_store(store_subject: StoreSubject) -> AsyncIterator[MakeStore]:
    """Make stores in one place, not opened, as ``StoreSubject.make``; they are closed after the test."""
    made: list[Store] = []

    def make(clock: Clock | None = None) -> Store:
        made.append(store_subject.make(clock))
        return made[-1]

    yield make
    for store in made:
        await store.close()


@pytest.fixture
def clock() -> ManualClock:
    """The clock of ``store`` and ``effect_store``."""
    return ManualClock()


@pytest.fixture
async def store(make_store: MakeStore, clock: ManualClock) -> Store:
    """An open store that remembers nothing."""
    made = make_store(clock)
    await made.migrate()
    await made.open()
    return made


@pytest.fixture
async def other_store(store: Store, make_store: MakeStore, clock: ManualClock) -> Store:  # noqa: ARG001 - made first
    """Another open store in the same place, as a worker elsewhere has it."""
    made = make_store(clock)
    await made.open()
    return made


@pytest.fixture
async def effect_store(effect_subject: EffectSubject, clock: ManualClock) -> AsyncIterator[EffectStore]:
    """An open store that remembers nothing, beside a table of accounts: Ada's, with nothing in it."""
    made = effect_subject.make(clock)
    await made.migrate()
    effect_subject.execute("CREATE TABLE accounts (owner text PRIMARY KEY, credit integer NOT NULL)")
    effect_subject.execute("INSERT INTO accounts VALUES ('ada', 0)")
    await made.open()
    yield made
    await made.close()
