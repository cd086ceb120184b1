"""Commands and workers of services on a store in which their own tables are missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from penstock.connect import store_for
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
