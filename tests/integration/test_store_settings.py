"""What a worker says of its store before it begins: one line and the right exit code, or it works."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from penstock import failpoints
from penstock.errors import ConfigError
from penstock.testing.broker_node import BrokerInfo
from tests.support.apps import EFFECTS
from tests.support.brokers import manage
from tests.support.commands import Finished, penstock_in
from tests.support.once_apps import with_a_ledger
from tests.support.processes import worker_process
from tests.support.redis import StartRedis
from tests.support.waiting import eventually
from tests.support.working import foreign

ROOT = Path(__file__).parents[2]


def start(url: str, folder: Path, store: str | None, *words: str, **environment: str) -> Finished:
    """Start the worker of tests.support.once_apps; it is expected to end by itself."""
    settings = {
        "RABBITMQ_URL": url,
        "PENSTOCK_TOPOLOGY": str(folder / "none.yaml"),
        "PENSTOCK_CONNECT_TIMEOUT": "1",
        "PYTHONPATH": f"{ROOT}",
        EFFECTS: str(folder / "effects"),
    }
    if store is not None:
        settings["PENSTOCK_STORE_URL"] = store
    return penstock_in(folder, "worker", "tests.support.once_apps:build", *words, **(settings | environment))


@pytest.mark.parametrize(
    ("store", "code", "words"),
    [
        ("sqlite:///none.db", 5, "run penstock store migrate"),
        ("mysql://host/db", 5, "PENSTOCK_STORE_URL has the scheme 'mysql'"),
        ("sqlite://", 5, "names no file"),
        ("redis://127.0.0.1:1/0", 5, "once='effect'"),
        ("postgresql://nobody:secret@127.0.0.1:1/none", 3, "127.0.0.1:1"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_line_and_an_exit_code(
    url: str, tmp_path: Path, store: str, code: int, words: str
) -> None:
    ended = start(url, tmp_path, store)
    said = [line for line in ended.err.splitlines() if line.startswith("penstock:")]
    assert ended.code == code, ended.err
    assert len(said) == 1
    assert words in said[0]
    assert "secret" not in ended.err


def test_production_names_its_store(url: str, tmp_path: Path) -> None:
    ended = start(url, tmp_path, None, PENSTOCK_ENV="production")
    assert (ended.code, "PENSTOCK_STORE_URL is not set" in ended.err) == (5, True)


def test_failpoints_are_refused_in_production(url: str, tmp_path: Path) -> None:
    ended = start(url, tmp_path, None, PENSTOCK_ENV="production", PENSTOCK_FAILPOINTS="claimed=kill")
    assert (ended.code, "PENSTOCK_FAILPOINTS" in ended.err) == (5, True)


@pytest.mark.parametrize("text", ["nowhere=kill", "claimed=explode", "claimed", "claimed=kill@x"])
def test_a_failpoint_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="PENSTOCK_FAILPOINTS"):
        failpoints.parse(text)


async def test_a_file_is_refused_in_production_when_another_host_consumes_the_queue(
    url: str, broker: BrokerInfo, tmp_path: Path
) -> None:
    store = await with_a_ledger(f"sqlite:///{tmp_path}/store.db")

    def started() -> Finished:
        management = {"RABBITMQ_MANAGEMENT_URL": broker.management_url}
        return start(url, tmp_path, store, PENSTOCK_ENV="production", **management)

    async with foreign(url) as channel:
        queue = await channel.get_queue("jobs.email", ensure=False)
        await queue.consume(_never, consumer_tag="email@elsewhere:7#1")
        # The management API tells of a consumer when its statistics have come round.
        await eventually(lambda: _seen(broker, url), within=30)
        ended = await asyncio.to_thread(started)
    assert (ended.code, "email@elsewhere:7#1" in ended.err) == (5, True), ended.err


def _seen(broker: BrokerInfo, url: str) -> list[Any]:
    """The consumers of the queue that the management API knows of."""
    known = manage(broker, "GET", f"/api/queues/{url.rpartition('/')[2]}/jobs.email")
    found: list[Any] = known.get("consumer_details", [])
    return found


async def _never(_: object) -> None: ...


async def test_a_file_is_refused_in_production_when_nobody_can_say_who_consumes(url: str, tmp_path: Path) -> None:
    store = await with_a_ledger(f"sqlite:///{tmp_path}/store.db")
    management = {"RABBITMQ_MANAGEMENT_URL": "http://127.0.0.1:1"}
    ended = await asyncio.to_thread(start, url, tmp_path, store, PENSTOCK_ENV="production", **management)
    assert (ended.code, "cannot be seen" in ended.err) == (5, True), ended.err


async def test_a_worker_that_may_makes_its_store_itself(url: str, tmp_path: Path) -> None:
    store = tmp_path / "new" / "store.db"
    settings = {"PENSTOCK_STORE_URL": f"sqlite:///{store}", "PENSTOCK_STORE_MIGRATE": "1"}  # as --apply does
    async with worker_process(url, tmp_path, module="tests.support.once_apps", **settings) as worker:
        assert store.exists()
        assert worker.running


def test_a_redis_that_forgets_is_refused_in_production(url: str, tmp_path: Path, own_redis: StartRedis) -> None:
    server = own_redis(appendonly="no")
    ended = start(url, tmp_path, server.url, PENSTOCK_ENV="production")
    assert ended.code == 5
    assert "appendonly" in ended.err


def test_a_default_store_is_a_file_of_the_working_directory(url: str, tmp_path: Path) -> None:
    ended = start(url, tmp_path, None)
    assert (ended.code, "sqlite:///penstock.db" in ended.err) == (5, True)
    assert not list(tmp_path.glob("*.db"))
