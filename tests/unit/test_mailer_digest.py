"""The list of subscribers and the pages of a digest, on a real SQLite file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock import Handlers, Job, Reject, SchemaError
from penstock.claims import StoreUrl
from penstock.storing import EffectStore
from penstock_jobs import DAILY_DIGEST, DailyDigest
from services.mailer import subscribers
from services.mailer.app import register_digest
from services.mailer.command import main, migrate
from services.mailer.digest import TEMPLATE, Digests, refuse
from services.mailer.templates import Templates
from tests.support.stores import opened

DAY = date(2026, 8, 3)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EffectStore]:
    """A store with an empty list."""
    url = StoreUrl.parse(f"sqlite:///{tmp_path}/store.db")
    await migrate(url)
    async with opened(url) as store:
        yield store


async def join(store: EffectStore, *names: str) -> list[int]:
    async with store.effect() as effect:
        return [await subscribers.subscribe(effect.transaction, f"{name}@example.org", name) for name in names]


async def leave(store: EffectStore, name: str) -> bool:
    async with store.effect() as effect:
        return await subscribers.unsubscribe(effect.transaction, f"{name}@example.org")


async def members(store: EffectStore) -> list[str]:
    async with store.effect() as effect:
        return [one.name for one in await subscribers.page(effect.transaction, 0, 100)]


async def digest(store: EffectStore, page: int, after: int = 0) -> dict[str, int | None]:
    job = Job("tick", DAILY_DIGEST.name, DailyDigest(date=DAY, after=after))
    async with store.effect() as effect:
        return await Digests(page).daily(job, effect.transaction)


async def added(store: EffectStore) -> list[tuple[str, str, dict[str, Any]]]:
    async with store.effect() as effect:
        rows = await effect.transaction.execute("SELECT kind, job_id, body FROM penstock_outbox ORDER BY id")
        return [(kind, job_id, orjson.loads(body)) for kind, job_id, body in rows.fetchall()]


async def test_who_has_left_is_no_member_until_they_come_back_with_their_old_number(store: EffectStore) -> None:
    ada, grace = await join(store, "ada", "grace")
    assert (await leave(store, "ada"), await leave(store, "ada"), await leave(store, "nobody")) == (True, False, False)
    assert await members(store) == ["grace"]
    assert await join(store, "ada") == [ada]
    assert await members(store) == ["ada", "grace"]
    assert ada != grace


async def test_an_address_in_other_letters_is_the_same_subscriber(store: EffectStore) -> None:
    assert await join(store, "ada") == await join(store, "ADA")
    assert await members(store) == ["ADA"]
    assert await leave(store, "Ada")


async def test_the_number_of_a_deleted_subscriber_is_not_given_again(store: EffectStore) -> None:
    [first] = await join(store, "ada")
    async with store.effect() as effect:
        await effect.transaction.execute("DELETE FROM mailer_subscribers")
    assert await join(store, "grace") != [first]


async def test_a_page_asks_for_its_mails_and_for_the_page_after_it(store: EffectStore) -> None:
    await join(store, "ada", "grace", "mary")
    assert await digest(store, page=2) == {"mails": 2, "bad": 0, "after": 2}
    first, second, following = await added(store)
    values = {"name": "ada", "date": "Monday, 3 August 2026"}
    mail: dict[str, Any] = {
        "to": "ada@example.org",
        "template": TEMPLATE,
        "values": values,
        "order_id": None,
        "attachments": [],
    }
    assert first == ("email.send", "digest:2026-08-03:1", mail)
    assert second[1] == "digest:2026-08-03:2"
    assert following == ("digest.daily", "digest:2026-08-03:after:2", {"date": "2026-08-03", "after": 2})
    assert await digest(store, page=2, after=2) == {"mails": 1, "bad": 0, "after": None}
    assert [job_id for _, job_id, _ in await added(store)][3:] == ["digest:2026-08-03:3"]


async def test_nobody_on_the_list_means_no_mail_and_no_further_page(store: EffectStore) -> None:
    assert await digest(store, page=2) == {"mails": 0, "bad": 0, "after": None}
    assert await added(store) == []


async def test_an_address_that_is_none_stops_nobody_else(store: EffectStore, caplog: pytest.LogCaptureFixture) -> None:
    await join(store, "ada", "not an address", "mary")
    assert await digest(store, page=10) == {"mails": 2, "bad": 1, "after": None}
    assert caplog.messages == ["subscriber 2 has no address that mail can be sent to"]
    assert "not an address" not in caplog.text


async def test_without_transactions_a_digest_is_refused_with_the_reason() -> None:
    handlers = Handlers()
    register_digest(handlers, "redis", 10)
    assert handlers.for_kind(DAILY_DIGEST.name).function is refuse
    with pytest.raises(Reject, match="set the mailer's PENSTOCK_STORE_URL to sqlite:// or postgresql://"):
        await refuse(Job("tick", DAILY_DIGEST.name, DailyDigest(date=DAY)))


@pytest.mark.parametrize("body", ["{}", '{"date": "soon"}', '{"date": "2026-08-03", "after": -1}'])
def test_a_digest_of_no_day_is_refused(body: str) -> None:
    with pytest.raises(SchemaError):
        DAILY_DIGEST.decode(body.encode())


def test_the_mail_is_written_from_a_name_and_a_date_without_trusting_either() -> None:
    text = Templates().render(TEMPLATE, {"name": "<Ada>\n", "date": "Monday, 3 August 2026"})
    assert text.subject == "Your digest for Monday, 3 August 2026"
    assert "Good morning, <Ada>" in text.plain
    assert text.html is not None
    assert "&lt;Ada&gt;" in text.html


def test_the_command_keeps_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_URL", f"sqlite:///{tmp_path}/made/store.db")
    assert [main(["migrate"]), main(["subscribe", "ada@example.org", "Ada"])] == [0, 0]
    assert [main(["unsubscribe", "ada@example.org"]), main(["unsubscribe", "ada@example.org"])] == [0, 0]
    assert capsys.readouterr().out.splitlines()[1:] == [
        "ada@example.org is subscriber 1",
        "ada@example.org gets no more digests",
        "ada@example.org gets none",
    ]


def test_an_address_that_is_none_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_URL", f"sqlite:///{tmp_path}/store.db")
    assert main(["subscribe", "ada", "Ada"]) == 2
    assert capsys.readouterr().err == "mailer: 'ada' is no plain address such as ada@example.org\n"


def test_a_store_without_transactions_holds_no_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_URL", "redis://user:secret@127.0.0.1:1/0")
    assert main(["migrate"]) == 5
    told = capsys.readouterr().err
    assert told.startswith("mailer: redis://127.0.0.1:1/0 cannot hold subscribers")
    assert "secret" not in told
