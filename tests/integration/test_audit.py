"""The audit from a publish to the table that refuses to change: every job once, whatever its arguments are."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import closing

import orjson
import psycopg
import pytest

from penstock import Dead, Done, Duplicate, Publisher
from penstock.claims import StoreUrl
from penstock.connect import store_for
from penstock_jobs import CREDIT_ADD, DAILY_DIGEST, SEND_EMAIL, CreditAdd, SendEmail
from services.audit.app import build
from services.audit.command import main, migrate
from tests.support.outboxes import connect, rows
from tests.support.waiting import eventually
from tests.support.working import depth, empty, foreign, put, working

TABLE = (
    "SELECT job_id, kind, app_id, correlation_id, published, args_sha256, args_bytes FROM audit_jobs ORDER BY job_id"
)
GIFT = CreditAdd(user=123, amount=5, reason="späte Post")
GIFT_BODY = '{"amount":5,"reason":"späte Post","user":123}'.encode()


async def test_every_job_is_recorded_once_and_its_arguments_never(our_url: str, effect_store_url: str) -> None:
    await empty(our_url, "jobs.audit", "jobs.credits", "jobs.email")
    await migrate(StoreUrl.parse(effect_store_url))
    with Publisher(our_url, app_id="shop") as publisher:
        for _ in range(2):
            publisher.publish(CREDIT_ADD, GIFT, id="gift", correlation_id="order-7")
        publisher.publish(SEND_EMAIL, SendEmail(to="ada@example.org", template="welcome"), id="mail")
    async with foreign(our_url) as channel:
        await put(channel, "digest.daily", b'{"date": "not a day"}', message_id="broken", app_id="zero\0")
        await put(channel, "digest.daily", b"not JSON", message_id="garbage")
    store = store_for(effect_store_url)
    async with working(our_url, build().handlers, queue="audit", store=store) as watched:
        await eventually(lambda: len(watched.finished) >= 5, within=20)
    assert sorted(type(event.outcome).__name__ for event in watched.finished) == sorted(
        cls.__name__ for cls in (Done, Done, Done, Duplicate, Dead)
    )
    broken, gift, mail = rows(effect_store_url, TABLE)
    assert gift[:4] == ("gift", CREDIT_ADD.name, "shop", "order-7")
    assert gift[4] > 1_700_000_000_000
    assert gift[5:] == (hashlib.sha256(GIFT_BODY).hexdigest(), len(GIFT_BODY))
    assert (mail[0], mail[1]) == ("mail", SEND_EMAIL.name)
    assert broken[:3] == ("broken", DAILY_DIGEST.name, "zero\N{REPLACEMENT CHARACTER}")
    assert "späte Post" not in str(rows(effect_store_url, "SELECT * FROM audit_jobs"))
    # Its own queue beside those that do the work: nobody waits for the audit, and it takes nothing from anybody.
    assert (await depth(our_url, "jobs.credits"), await depth(our_url, "jobs.email")) == (2, 3)


ADD = "INSERT INTO audit_jobs (job_id, kind, args_sha256, args_bytes) VALUES ('kept', 'a.b', '', 2)"
REFUSED_BY_ALL = (
    "UPDATE audit_jobs SET app_id = 'nobody'",
    "DELETE FROM audit_jobs",
    "DELETE FROM audit_jobs WHERE job_id = 'kept'",
)
REFUSED = {
    "sqlite": (
        *REFUSED_BY_ALL,
        "REPLACE INTO audit_jobs SELECT * FROM audit_jobs",
        "INSERT OR REPLACE INTO audit_jobs (rowid, job_id, kind, args_sha256, args_bytes) VALUES (1, 'x', 'x', 'x', 0)",
        "INSERT INTO audit_jobs SELECT * FROM audit_jobs WHERE true ON CONFLICT (entry) DO UPDATE SET app_id = 'x'",
    ),
    "postgresql": (
        *REFUSED_BY_ALL,
        "TRUNCATE audit_jobs",
        "SET session_replication_role = replica; DELETE FROM audit_jobs",
        "INSERT INTO audit_jobs OVERRIDING SYSTEM VALUE SELECT * FROM audit_jobs ON CONFLICT (entry) DO UPDATE"
        " SET app_id = 'nobody'",
    ),
}


async def test_the_table_takes_rows_and_refuses_to_change(effect_store_url: str) -> None:
    url = StoreUrl.parse(effect_store_url)
    await migrate(url)
    await asyncio.gather(*(migrate(url) for _ in range(4)))
    change(effect_store_url, ADD)
    before = rows(effect_store_url, "SELECT * FROM audit_jobs")
    for statement in REFUSED[url.scheme]:
        with pytest.raises((sqlite3.Error, psycopg.Error), match="append-only"):
            change(effect_store_url, statement)
    assert rows(effect_store_url, "SELECT * FROM audit_jobs") == before
    assert len(before) == 1


def test_the_command_shows_what_was_asked_for(
    effect_store_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_URL", effect_store_url)
    assert told(capsys, "migrate").startswith("the audit's table is ready in ")
    for number, kind in enumerate(("email.send", "credit.add", "email.send")):
        change(
            effect_store_url,
            "INSERT INTO audit_jobs (job_id, kind, app_id, published, recorded, args_sha256, args_bytes)"
            f" VALUES ('job-{number}', '{kind}', 'sh\x1bop', 1785740400123, {1785740400000 + 1000 * number}, 'abc', 2)",
        )
    first, *others = told(capsys, "list").splitlines()
    assert first == (
        "2026-08-03T07:00:00.000Z  email.send  job-0  by sh\\x1bop  published 2026-08-03T07:00:00.123Z  2 B  abc"
    )
    assert [line.split("  ")[2] for line in others] == ["job-1", "job-2"]
    assert ids(told(capsys, "list", "--json", "--kind", "email.*")) == ["job-0", "job-2"]
    assert ids(told(capsys, "list", "--json", "--kind", "email.*", "--limit", "1")) == ["job-2"]
    assert ids(told(capsys, "list", "--json", "--since", "2026-08-03T09:00:01+02:00")) == ["job-1", "job-2"]
    assert told(capsys, "list", "--kind", "report.#") == ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("list", "--since", "2026-08-03T07:00:00"), "is no instant with its zone"),
        (("list", "--limit", "0"), "is no number from 1 to 1000000"),
    ],
)
def test_the_command_refuses_what_cannot_be_meant(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], line: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert line in capsys.readouterr().err


def test_a_store_without_tables_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_URL", "redis://127.0.0.1:1/0")
    assert main(("migrate",)) == 5
    assert "cannot hold the audit's records: set PENSTOCK_STORE_URL to" in capsys.readouterr().err


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command printed."""
    assert main(words) == 0
    return capsys.readouterr().out


def ids(lines: str) -> list[str]:
    return [orjson.loads(line)["job_id"] for line in lines.splitlines()]


def change(url: str, statement: str) -> None:
    """Run *statement* at *url*, and commit."""
    with closing(connect(url)) as connection:
        connection.execute(statement)
        connection.commit()
