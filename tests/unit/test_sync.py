"""The sync's judgements: when a host may be asked, how long a pause is, and what may stand in sync.yaml."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError
from services.sync.app import build
from services.sync.hosts import Host, Terms
from services.sync.ports import Busy, NotNow, Refused
from services.sync.retry_after import SHORTEST, retry_after
from services.sync.settings import SOURCES
from services.sync.sources import Wanted, parse_sources, per_second, read_sources

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

    def __init__(self, rate: float = 1000.0, failures: int = 2) -> None:
        self.now = 0.0
        self.host = Host("api", Terms(rate, failures, timedelta(seconds=10)), lambda: self.now)

    def ask(self, after: float = 0.0, error: BaseException | None = None) -> None:
        """One request so much later, which ends with *error*. Raises ``Busy``."""
        self.now += after
        with suppress(NotNow, Refused, asyncio.CancelledError), self.host.request():
            if error is not None:
                raise error

    def busy(self, after: float = 0.0) -> float:
        """For how long the host is left alone, asked so much later."""
        with pytest.raises(Busy) as caught:
            self.ask(after)
        return caught.value.after.total_seconds()


def test_a_breaker_opens_after_failures_one_after_the_other_only() -> None:
    at = At(failures=2)
    for error in (FAILED, None, FAILED, Refused("404"), FAILED, PAUSED):
        at.ask(8, error)
    assert at.busy() == 7
    at.ask(8, FAILED)
    at.ask(0, FAILED)
    assert at.busy() == 10


def test_an_open_breaker_lets_one_try_and_stays_open_twice_as_long_when_that_fails() -> None:
    at = At(failures=1)
    at.ask(0, FAILED)
    assert at.busy(9) == 1
    at.ask(1, FAILED)
    assert at.busy() == 20
    at.ask(20)
    for _ in range(3):
        at.ask()
    at.ask(0, FAILED)
    assert at.busy() == 10, "what was before is forgotten"


def test_while_one_tries_the_others_wait_and_one_that_was_broken_off_says_nothing() -> None:
    at = At(failures=1)
    at.ask(0, FAILED)
    at.now = 10
    with at.host.request():
        assert at.busy() == 2
    at.ask(0, FAILED)
    at.ask(10, asyncio.CancelledError())
    at.ask(0, FAILED)
    assert at.busy() == 20


def test_what_began_before_it_opened_neither_closes_it_nor_keeps_it_open() -> None:
    at = At(failures=1)
    with at.host.request():
        at.ask(0, FAILED)
    assert at.busy() == 10
    at.ask(10)
    with suppress(NotNow), at.host.request():
        at.ask(0, FAILED)
        at.now += 5
        raise FAILED
    assert at.busy() == 5


@given(rate=st.floats(0.05, 500), waits=st.lists(st.floats(0, 2), max_size=200))
def test_a_host_is_never_asked_more_often_than_its_rate(rate: float, waits: list[float]) -> None:
    at, asked = At(rate), []
    for wait in waits:
        with suppress(Busy):
            at.ask(wait)
            asked.append(at.now)
    for first, begun in enumerate(asked):
        for last in range(first, len(asked)):
            # Of the second before as many may be left over, and the first counts as one.
            assert last - first <= (asked[last] - begun + 1) * rate + 1e-6


def test_who_has_to_wait_for_the_rate_may_ask_when_the_time_is_up() -> None:
    at = At(rate=0.5)
    at.ask()
    wait = at.busy()
    at.ask(wait)
    assert at.busy() == 2


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
        ("30/m", "fast", "2: host api.example.org: 'fast' is no rate such as 5/s, 30/m or 1000/h"),
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


@pytest.mark.parametrize("text", ["", "5", "0/s", "5/d", "-5/s", "1.5/s"])
def test_a_rate_is_a_whole_number_in_a_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        per_second(text)


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
