"""The command line for stores and outboxes: what it prints, as words and as JSON, and its exit codes."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import orjson
import pytest

from penstock.claims import Claim, Mark, State
from penstock.connect import store_for
from penstock.testing.free_ports import free_ports
from tests.support.commands import Finished, penstock_here
from tests.support.outboxes import BACK_ENDS, MAIL, add_all, connect


@pytest.fixture
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables: on both back ends where the test says so, else on SQLite, as words are the same."""
    where: str = request.getfixturevalue("postgres_url") if getattr(request, "param", "") == "postgresql" else ""
    return where or f"sqlite:///{tmp_path}/new/store.db"


ON_BOTH = pytest.mark.parametrize("empty_url", BACK_ENDS, indirect=True)


@pytest.fixture
def store_url(empty_url: str) -> str:
    """A store with its tables."""
    asyncio.run(store_for(empty_url).migrate())
    return empty_url


#: The version of the schema, by the store.
NEWEST = {"sqlite": 3, "postgresql": 4}


async def remember(url: str, job_id: str, state: State, result: bytes | None = None) -> None:
    """Let a job be claimed and end."""
    store = store_for(url)
    await store.open()
    claim = Claim("email", job_id, 2, 1, 30_000)
    await store.claim([claim])
    if state is not State.RUNNING:
        await store.mark([Mark(claim, state, result)])
    await store.close()


def park(url: str, kind: str, reason: str) -> None:
    """Let the jobs of *kind* be parked."""
    connection = connect(url)
    connection.execute(f"UPDATE penstock_outbox SET parked = '{reason}' WHERE kind = '{kind}'")
    connection.commit()
    connection.close()


def words_of(done: Finished) -> str:
    """The one line of what went wrong."""
    assert "Traceback" not in done.err
    return done.err.splitlines()[-1]


@ON_BOTH
def test_migrate_says_what_it_did_and_does_it_once(empty_url: str) -> None:
    command = partial(penstock_here, "store", "migrate", PENSTOCK_STORE_URL=empty_url)
    newest = NEWEST[empty_url.partition(":")[0]]
    assert command() == Finished(0, f"schema 0 -> {newest}\n", "")
    assert command() == Finished(0, f"schema {newest}, nothing to do\n", "")


def test_what_needs_the_tables_says_how_to_get_them(empty_url: str) -> None:
    status = penstock_here("store", "status", "--store-url", empty_url)
    assert (status.code, status.out.splitlines()[1:]) == (0, ["schema   none: run penstock store migrate"])
    for command in (("store", "show", "x"), ("store", "forget", "x"), ("outbox", "status"), ("outbox", "retry")):
        done = penstock_here(*command, "--store-url", empty_url)
        assert done.code == 5
        assert "run penstock store migrate" in words_of(done)


@ON_BOTH
def test_status_counts_records_and_what_waits_in_the_outbox(store_url: str) -> None:
    asyncio.run(remember(store_url, "one", State.DONE))
    asyncio.run(remember(store_url, "two", State.RUNNING))
    add_all(store_url, MAIL, range(3))
    done = penstock_here("store", "status", PENSTOCK_STORE_URL=store_url)
    assert done.code == 0
    store, schema, records, oldest, outbox = done.out.splitlines()
    newest = NEWEST[store_url.partition(":")[0]]
    assert (store[:9], schema, records) == ("store    ", f"schema   {newest}", "records  1 done, 1 running")
    assert oldest.startswith("oldest   20")
    assert outbox.startswith("outbox   3 waiting, the oldest for ")
    assert outbox.endswith("; 0 parked")
    facts = orjson.loads(penstock_here("store", "status", "--json", PENSTOCK_STORE_URL=store_url).out)
    assert facts["records"] == {"done": 1, "running": 1}
    assert (facts["schema"], facts["outbox"]["waiting"], facts["outbox"]["parked"]) == (newest, 3, 0)


def test_show_tells_a_job_with_its_result_and_forget_ends_its_memory(store_url: str) -> None:
    asyncio.run(remember(store_url, "order-7", State.DONE, b'{"sum":5}'))
    command = partial(penstock_here, PENSTOCK_STORE_URL=store_url)
    shown = command("store", "show", "order-7")
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()] == [
        "job_id", "consumer", "state", "copy", "claimed", "result",
    ]  # fmt: skip
    [record] = orjson.loads(command("store", "show", "order-7", "--json").out)
    assert (record["consumer"], record["state"], record["copy"], record["result"]) == ("email", "done", 2, {"sum": 5})
    assert command("store", "forget", "order-7") == Finished(0, "1 record forgotten\n", "")
    gone = command("store", "show", "order-7", "--json")
    assert (gone.code, gone.out) == (6, "[]\n")
    assert command("store", "show", "order-7").code == 6
    assert command("store", "forget", "order-7").code == 6


def test_the_outbox_is_told_by_kind_and_what_is_parked_with_its_reason(store_url: str) -> None:
    command = partial(penstock_here, PENSTOCK_STORE_URL=store_url)
    assert command("outbox", "status") == Finished(0, "0 waiting, 0 parked\n", "")
    ids = add_all(store_url, MAIL, range(3))
    park(store_url, "email.send", "Unroutable: nobody takes it")
    status = command("outbox", "status")
    first, total, *parked = status.out.splitlines()
    assert (status.code, first, total) == (0, "0  -  3  email.send", "0 waiting, 3 parked")
    assert [line.split("  ")[2:] for line in parked] == [[job_id, "Unroutable: nobody takes it"] for job_id in ids]
    assert command("outbox", "retry", ids[0], "nonsense").code == 6
    facts = orjson.loads(command("outbox", "status", "--json").out)
    assert [(kind["kind"], kind["waiting"], kind["parked"]) for kind in facts["kinds"]] == [("email.send", 1, 2)]
    assert [job["id"] for job in facts["parked"]] == ids[1:]
    assert command("outbox", "retry") == Finished(0, "2 jobs wait again\n", "")


def test_a_store_that_is_away_is_code_3_and_every_try_a_line() -> None:
    [port] = free_ports(1)
    url = f"postgresql://ada:hunter2@127.0.0.1:{port}/jobs"
    for command in (("store", "migrate"), ("outbox", "status")):
        done = penstock_here(*command, PENSTOCK_STORE_URL=url, PENSTOCK_CONNECT_TIMEOUT="0.3")
        assert done.code == 3
        assert all(line.startswith("penstock: ") for line in done.err.splitlines())
        assert f"127.0.0.1:{port}" in words_of(done)
        assert "hunter2" not in done.err


def test_a_url_that_holds_no_store_or_no_outbox_is_code_5() -> None:
    for command, url, words in (
        (("store", "status"), "mysql://host/jobs", "scheme 'mysql'"),
        (("outbox", "status"), "redis://host/0", "holds no outbox"),
    ):
        done = penstock_here(*command, "--store-url", url)
        assert done.code == 5
        assert words in words_of(done)
