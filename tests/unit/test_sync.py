"""The sync's judgements: when a host may be asked, how long a pause is, and what may stand in sync.yaml."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError, Job, Snooze
from penstock.pacing.lines import Busy
from penstock_jobs import SyncPull
from services.sync.app import build
from services.sync.handlers import Puller
from services.sync.hosts import hosts
from services.sync.ports import NotNow, Place, Refused
from services.sync.retry_after import SHORTEST, retry_after
from services.sync.settings import SOURCES, Settings
from services.sync.sources import Source, Wanted, parse_sources, read_sources

FAILED, PAUSED, HOUR = NotNow("500"), NotNow("429", after=timedelta(seconds=7), failed=False), timedelta(hours=1)
ORDERS = """\
hosts:
  api.example.org: {rate: 30/m}
sources:
  orders:
    url: https://api.example.org/v1/orders?limit=200
    items: data.list
    key: id
    fields: {id: integer, note: optional text}
    next: optional paging.after
    parameter: after
    token: PARTNER_TOKEN
    redirects: [files.example.org]
"""


class At:
    """A host at an instant that the test sets."""

    def __init__(self, rate: float = 1000.0) -> None:
        self.now = 1000.0
        settings = Settings(breaker_failures=2, breaker_cooldown=timedelta(seconds=10), rate=1.0)
        self.hosts = hosts(settings.terms(), {"api": rate}, lambda: self.now)

    async def ask(
        self, after: float = 0.0, error: BaseException | None = None, *, host: str = "api", returning: bool = True
    ) -> None:
        """One request so much later, which ends with *error*. Raises ``Busy``."""
        self.now += after
        with suppress(NotNow, Refused):
            async with self.hosts.passing(host, returning=returning):
                if error is not None:
                    raise error

    async def busy(self, after: float = 0.0, *, host: str = "api", returning: bool = True) -> float:
        """For how long the host is left alone, asked so much later."""
        with pytest.raises(Busy) as caught:
            await self.ask(after, host=host, returning=returning)
        return caught.value.after.total_seconds()


async def test_a_host_is_left_alone_after_failures_one_after_the_other_only() -> None:
    at = At()
    for error in (FAILED, None, FAILED, Refused("404"), FAILED, NotNow("429", failed=False), FAILED, PAUSED):
        await at.ask(0, error)
    assert await at.busy() == 7
    await at.ask(7, FAILED)
    await at.ask(0, FAILED)
    assert await at.busy() == 10


async def test_a_host_that_still_fails_is_left_alone_for_twice_as_long_up_to_16_times() -> None:
    at, waits = At(), list[float]()
    await at.ask(0, FAILED)
    await at.ask(0, FAILED)
    for _ in range(6):
        waits.append(await at.busy())
        await at.ask(waits[-1], FAILED)
    assert waits == [10, 20, 40, 80, 160, 160]
    await at.ask(160)
    await at.ask(0, FAILED)
    await at.ask(0, FAILED)
    assert await at.busy() == 10, "what was before is forgotten"


@pytest.mark.parametrize("first", [[PAUSED], [FAILED, FAILED]])
async def test_a_hundred_that_wait_for_a_host_do_not_come_back_at_once(first: list[NotNow]) -> None:
    at = At(rate=10)
    for error in first:
        await at.ask(0, error)
    waits = [await at.busy(returning=False) for _ in range(100)]
    assert waits == sorted(waits)
    assert waits[-1] - waits[0] >= 9
    assert max(waits.count(wait) for wait in waits) <= 11


async def test_a_host_that_the_file_names_has_its_own_rate_and_the_others_that_of_the_settings() -> None:
    at = At(rate=0.5)
    for _ in range(2):
        await at.ask(host="other")
    assert await at.busy(host="other") == 1
    await at.ask()
    assert await at.busy() == 1


class Waiting:
    """An API whose host is busy. Tells who has waited before."""

    def __init__(self) -> None:
        self.returned: list[bool] = []

    async def page(self, _source: Source, _place: Place, *, returning: bool) -> None:
        self.returned.append(returning)
        raise Busy("api is left alone", after=timedelta(seconds=5))


class Empty:
    """A shelf with nothing on it, where nothing is put."""

    async def place(self, _source: str) -> Place:
        return Place()

    async def keep(self, *_args: object, **_options: object) -> bool:
        raise AssertionError("there is nothing to keep")

    async def ask_for(self, *_args: object) -> None:
        raise AssertionError("nobody asked for it")


async def test_a_pull_of_a_busy_host_is_snoozed_and_every_copy_after_the_first_has_waited() -> None:
    api = Waiting()
    puller = Puller(parse_sources(ORDERS), api, Empty(), max_pages=1, stale_after=HOUR)
    for copy in (0, 1):
        with pytest.raises(Snooze) as caught:
            await puller.pull(Job("1", "sync.pull", SyncPull(source="orders"), copy=copy))
        assert caught.value.after == timedelta(seconds=5)
    assert api.returned == [False, True]


@given(st.text())
def test_whatever_retry_after_says_the_pause_is_within_its_bounds(text: str) -> None:
    found = retry_after({"retry-after": text, "date": text[::-1]}, longest=HOUR)
    assert found is None or SHORTEST <= found <= HOUR


def test_everything_that_may_be_said_of_a_source_is_read() -> None:
    found = parse_sources(ORDERS)
    source = found.by_name["orders"]
    assert found.rates == {"api.example.org": 0.5}
    assert (source.scheme, source.host, source.items, source.key) == (
        "https",
        "api.example.org",
        ("data", "list"),
        "id",
    )
    assert source.fields == {"id": Wanted(("id",), "integer"), "note": Wanted(("note",), "text", optional=True)}
    assert source.following == Wanted(("paging", "after"), optional=True)
    assert (source.parameter, source.token, source.redirects) == ("after", "PARTNER_TOKEN", ("files.example.org",))


def test_the_file_that_is_shipped_pulls_nothing_and_its_example_can_be_read() -> None:
    assert read_sources(SOURCES).by_name == {}
    lines = SOURCES.read_text().splitlines()
    example = [line.removeprefix("# ") for line in lines[lines.index("#") :] if line.startswith("# ")]
    assert list(parse_sources("\n".join(example)).by_name) == ["partner-orders"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("30/m", "fast", "2: host api.example.org: 'fast' is no rate such as 10/s, 30/m or 1000/h"),
        ("{rate: 30/m}", "{}", "2: host api.example.org: rate is missing"),
        ("  orders:", "  Orders:", "4: source Orders: a name has a-z"),
        ("https://", "ftp://", "5: source orders: url must be such as"),
        ("https://", "https://user:password@", "5: source orders: url must be such as"),
        ("?limit=200", "#top", "5: source orders: url must be such as"),
        ("key: id", "key: note", "7: source orders: key 'note' must be one of its fields, a text or an integer"),
        ("    key: id\n", "", "4: source orders: key is missing"),
        ("optional text", "optional word", "8: source orders: field note cannot be 'optional word'; it is one of text"),
        ("    next: optional paging.after\n", "", "9: source orders: parameter is for what `next` names"),
        ("PARTNER_TOKEN", "'abc.def'", "11: source orders: token is the name of an environment variable"),
        ("files.example.org", "'https://files.example.org/'", "12: source orders: redirects are hosts"),
        ("    items:", "    item:", "6: source orders: unknown key item"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused_with_its_line(old: str, new: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_sources(ORDERS.replace(old, new))
    assert any(problem.startswith(f"sync.yaml:{words}") for problem in caught.value.problems), caught.value.problems


async def test_a_token_that_is_not_there_keeps_the_sync_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sync.yaml").write_text(ORDERS)
    monkeypatch.setenv("SYNC_SOURCES", str(tmp_path / "sync.yaml"))
    monkeypatch.setenv("PENSTOCK_STORE_URL", f"sqlite:///{tmp_path}/store.db")
    with pytest.raises(ConfigError, match="PARTNER_TOKEN is not set: source orders takes its token from it"):
        async with build():
            pass
    monkeypatch.setenv("PARTNER_TOKEN", "secret")
    async with build() as worker:
        assert (worker.queue, [handler.kind.name for handler in worker.handlers]) == ("sync", ["sync.pull"])


async def test_a_store_without_transactions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(ConfigError, match="cannot hold what is pulled"):
        async with build():
            pass
