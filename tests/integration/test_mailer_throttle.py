"""A mailer at work whose domains are limited, slow or full: their mails wait on the broker, and nobody else's do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock import AsyncPublisher, ConfigError, Done, Duplicate, NewJob, Snoozed, StoreUnavailable
from penstock.claims import StoreUrl
from penstock.connect import store_for
from penstock.service_tables import effect_store
from penstock_jobs import SEND_EMAIL, SendEmail
from services.mailer.app import build
from services.mailer.command import migrate
from services.mailer.shared_budgets import SharedBudgets
from tests.support.mail_server import MailServer, mail_server
from tests.support.waiting import eventually
from tests.support.working import LEVELS, Watched, empty, working


@pytest.fixture(name="clean", autouse=True)
def _clean(url: str) -> Iterator[None]:
    """What waits is thrown away: the others come to the same virtual host."""
    asyncio.run(empty(url, "jobs.email", *LEVELS))
    yield
    asyncio.run(empty(url, "jobs.email", *LEVELS))


def mails(domain: str, count: int) -> list[NewJob[SendEmail]]:
    return [
        SEND_EMAIL.new(
            SendEmail(to=f"ada{n}@{domain}", template="welcome", values={"name": "Ada"}), id=f"{_word(domain)}-{n}"
        )
        for n in range(count)
    ]


@asynccontextmanager
async def a_mailer(
    url: str, place: str, monkeypatch: pytest.MonkeyPatch, **settings: str
) -> AsyncIterator[tuple[MailServer, Watched, AsyncPublisher]]:
    """The mailer as it is put together, with four slots and its store at *place*."""
    await migrate(StoreUrl.parse(place))
    monkeypatch.setenv("PENSTOCK_STORE_URL", place)
    async with mail_server() as server:
        for name, value in {"SMTP_URL": server.url, "SLOTS": "4", **settings}.items():
            monkeypatch.setenv(f"MAILER_{name}", value)
        async with (
            build() as worker,
            working(url, worker.handlers, slots=4, store=store_for(place)) as watched,
            AsyncPublisher(url) as publisher,
        ):
            yield server, watched, publisher


def _word(domain: str) -> str:
    return domain.partition(".")[0]


def outcomes(watched: Watched, domain: str) -> Counter[type]:
    return Counter(type(event.outcome) for event in watched.finished if event.id.startswith(_word(domain)))


def attempts(watched: Watched) -> set[int]:
    return {event.attempt for event in watched.finished}


async def test_two_hundred_mails_to_a_limited_domain_wait_once_and_hold_up_nobody(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"sqlite:///{tmp_path}/store.db"
    async with a_mailer(url, place, monkeypatch, THROTTLE="slow.test=30/m") as (_, watched, publisher):
        await publisher.publish_many(mails("slow.test", 200))
        await publisher.publish_many(mails("fast.test", 50))
        await eventually(lambda: outcomes(watched, "fast.test") == {Done: 50}, within=30)
        await eventually(lambda: outcomes(watched, "slow.test").total() >= 200, within=30)
        assert outcomes(watched, "slow.test")[Snoozed] >= 150
        assert attempts(watched) == {1}
        waits = [event.outcome.delay.total_seconds() for event in watched.finished if type(event.outcome) is Snoozed]
    assert max(waits) > 300, "they were told to come back at the rate"
    assert max(Counter(waits[:190]).values()) <= 10, "they come back one by one"


async def test_a_domain_that_hangs_has_two_slots_and_no_more(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"sqlite:///{tmp_path}/store.db"
    async with a_mailer(url, place, monkeypatch, AT_ONCE="hangs.test=2") as (server, watched, publisher):
        server.held["hangs.test"] = asyncio.Event()
        await publisher.publish_many(mails("first.test", 1))  # a worker takes more than one only after its first
        await eventually(lambda: outcomes(watched, "first.test") == {Done: 1})
        await publisher.publish_many(mails("hangs.test", 200))
        await publisher.publish_many(mails("fast.test", 50))
        await eventually(lambda: outcomes(watched, "fast.test") == {Done: 50}, within=30)
        assert set(outcomes(watched, "hangs.test")) == {Snoozed}
        assert server.to("hangs.test") == []
        server.held["hangs.test"].set()
        await eventually(lambda: outcomes(watched, "hangs.test")[Done] >= 2)
    assert attempts(watched) == {1}


async def test_a_domain_that_has_had_too_much_is_left_alone_and_no_mail_loses_an_attempt(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"sqlite:///{tmp_path}/store.db"
    async with a_mailer(url, place, monkeypatch, RETRY_FIRST="2", RETRY_FACTOR="1") as (server, watched, publisher):
        server.answers["@full.test"] = "451 4.7.1 too many mails from you"
        await publisher.publish_many(mails("full.test", 20))
        await eventually(lambda: outcomes(watched, "full.test")[Snoozed] >= 20)
        server.answers.clear()
        await publisher.publish_many(mails("fast.test", 5))
        await eventually(lambda: len(server.mails) == 25, within=30)
        await eventually(lambda: sum(type(event.outcome) is Done for event in watched.finished) == 25)
    assert attempts(watched) == {1}
    assert outcomes(watched, "fast.test") == {Done: 5}


async def test_a_mail_that_has_waited_goes_out_once_and_waits_for_no_lease(
    url: str, effect_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = mails("slow.test", 4)
    async with a_mailer(url, effect_store_url, monkeypatch, THROTTLE="*=15/m") as (server, watched, publisher):
        await publisher.publish_many(asked)
        await eventually(lambda: outcomes(watched, "slow.test")[Done] == 4, within=60)
        assert outcomes(watched, "slow.test")[Snoozed] >= 2
        await publisher.publish_many(asked)
        await eventually(lambda: outcomes(watched, "slow.test")[Duplicate] == 4)
    assert sorted(str(mail["Message-ID"]) for mail in server.mails) == [f"<slow-{n}@penstock>" for n in range(4)]
    assert attempts(watched) == {1}


async def test_mailers_on_one_database_keep_a_rate_together(effect_store_url: str) -> None:
    place = StoreUrl.parse(effect_store_url)
    await migrate(place)
    async with (
        SharedBudgets(effect_store(place, "budgets", connections=4), place.scheme) as first,
        SharedBudgets(effect_store(place, "budgets", connections=4), place.scheme) as second,
    ):
        asked = [each.ask("a.test", 1 / 60, returning=False) for _ in range(20) for each in (first, second)]
        waits = sorted(await asyncio.gather(*asked))
        other = await second.ask("b.test", 1 / 60, returning=False)
    assert other == 0
    assert [round(wait / 60) for wait in waits] == list(range(40)), "one went; a minute lies between the others"


async def test_a_database_without_the_table_keeps_the_mailer_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_for(f"sqlite:///{tmp_path}/store.db")
    await store.migrate()
    monkeypatch.setenv("PENSTOCK_STORE_URL", f"sqlite:///{tmp_path}/store.db")
    monkeypatch.setenv("MAILER_THROTTLE", "*=1/s")
    with pytest.raises(ConfigError, match=r"no table for MAILER_THROTTLE: run python -m services\.mailer migrate"):
        async with build():
            pass


async def test_a_database_that_is_away_at_the_start_is_asked_again_with_each_mail() -> None:
    place = StoreUrl.parse("postgresql://postgres@127.0.0.1:1/none")
    async with SharedBudgets(effect_store(place, "budgets", connections=4), place.scheme) as budgets:
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                await budgets.ask("a.test", 1, returning=False)


async def test_a_store_that_cannot_be_shared_is_told_and_each_mailer_counts_for_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("MAILER_THROTTLE", "*=1/s")
    caplog.set_level("WARNING")
    async with build() as worker:
        assert worker.queue == "email"
    assert caplog.messages == ["each mailer keeps MAILER_THROTTLE by itself: redis://127.0.0.1:1/0 cannot hold budgets"]
