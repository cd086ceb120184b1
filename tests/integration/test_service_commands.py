"""Commands and workers of services on a store in which their own tables are missing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

import psycopg
import pytest

from penstock import ConfigError, Handlers, Job, JobKind, StoreUnavailable, Worker
from penstock.claims import StoreUrl
from penstock.connect import broker_for, store_for
from penstock.events import ConnectFailed
from penstock.service_tables import effect_store, tables
from penstock.storing import Store
from services.audit.command import main as audit
from services.mailer.command import main as mailer
from services.sync.command import main as sync
from tests.support.commands import penstock


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        (mailer, ("subscribe", "ada@example.org", "Ada"), "mailer: STORE has no table for subscribers"),
        (mailer, ("unsubscribe", "ada@example.org"), "mailer: STORE has no table for subscribers"),
        (sync, ("status",), "sync: STORE has no table for what is pulled"),
        (sync, ("rewind", "orders"), "sync: STORE has no table for what is pulled"),
        (audit, ("list",), "audit: STORE has no table for the audit's records"),
    ],
)
def test_a_table_that_was_never_made_is_one_line_that_says_so(
    command: Callable[[Sequence[str]], int],
    arguments: Sequence[str],
    words: str,
    effect_store_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = store_for(effect_store_url)
    asyncio.run(store.migrate())
    monkeypatch.setenv("PENSTOCK_STORE_URL", effect_store_url)
    assert command(arguments) == 5
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"{words.replace('STORE', store.shown)}: run this command with migrate first\n")


@pytest.mark.parametrize(
    ("service", "holds"), [("credits", "a ledger"), ("audit", "the audit's records"), ("sync", "what is pulled")]
)
def test_a_worker_whose_tables_were_never_made_takes_no_job_and_says_which_command_makes_them(
    service: str, holds: str, effect_store_url: str, url: str
) -> None:
    store = store_for(effect_store_url)
    asyncio.run(store.migrate())
    ended = penstock(
        "worker",
        f"services.{service}.app:build",
        RABBITMQ_URL=url,
        PENSTOCK_STORE_URL=effect_store_url,
        PENSTOCK_TOPOLOGY=f"rabbitmq/topology.{'audit.' if service == 'audit' else ''}yaml",
    )
    assert ended.code == 5
    says = f"{store.shown} has no table for {holds}: run python -m services.{service} migrate first"
    assert ended.err.splitlines()[-1].endswith(says)


async def test_a_role_that_may_only_insert_is_told_of_no_missing_table(postgres_url: str) -> None:
    store = effect_store(StoreUrl.parse(postgres_url), "notes")
    await store.migrate()
    with psycopg.connect(postgres_url, autocommit=True) as owner:
        owner.execute("CREATE TABLE notes (note text)")
        owner.execute("CREATE ROLE writer LOGIN")
        owner.execute("GRANT SELECT ON penstock_schema TO writer")
        owner.execute("GRANT INSERT ON notes TO writer")
    try:
        writing = effect_store(StoreUrl.parse(postgres_url.replace("postgres@", "writer@")), "notes")
        await writing.open()
        await tables("notes", "make", "notes")(writing)
        with pytest.raises(ConfigError, match="has no table for notes: run make first"):
            await tables("notes", "make", "notes", "others")(writing)
        await writing.close()
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as owner:
            owner.execute("DROP OWNED BY writer")
            owner.execute("DROP ROLE writer")


async def test_a_store_that_goes_away_before_the_check_is_waited_for(url: str, effect_store_url: str) -> None:
    store, tries, handlers = store_for(effect_store_url), itertools.count(1), Handlers()
    await store.migrate()
    stop = asyncio.Event()

    @handlers.on(JobKind("email.send", dict), once="lease")
    async def send(_: Job[dict[str, str]]) -> None: ...

    async def ready(_: Store) -> None:
        if next(tries) < 3:
            raise StoreUnavailable("the store has just gone")
        stop.set()

    worker, failed = Worker(handlers, queue="email", ready=ready), list[ConnectFailed]()
    worker.events.subscribe(failed.append, ConnectFailed)
    assert await worker.run(broker_for(url), stop=stop, store=store) is True
    assert [event.reason for event in failed if event.name == store.shown] == ["the store has just gone"] * 2
