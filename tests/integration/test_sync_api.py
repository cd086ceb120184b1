"""The sync's client before a server that misbehaves in every way: what each fault becomes, and what is never done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import pytest

from penstock.pacing.circuit_breaker import Terms
from penstock.pacing.lines import Busy
from services.sync.api import Bounds, HttpApi
from services.sync.hosts import hosts
from services.sync.ports import NotNow, Page, Place, Refused
from services.sync.sources import Source, parse_sources
from tests.support.api_server import Answer, ApiServer, api_server, in_json, redirect

HOUR = timedelta(hours=1)
BOUNDS = Bounds(timedelta(seconds=20), 4096, HOUR)
TERMS = Terms(8, 3, lambda _: timedelta(seconds=30), rate=1000.0)
HASTY = Bounds(timedelta(seconds=0.3), 4096, HOUR)
FIRST = Place()


@pytest.fixture(name="server")
async def _server() -> AsyncIterator[ApiServer]:
    async with api_server() as server:
        server.fill(5)
        yield server


def source_of(server: ApiServer, more: str = "next: paging.after, parameter: after") -> Source:
    """The server's orders as a source; *more* of its fields."""
    fields = "key: id, fields: {id: integer, status: text, amount: number, note: optional text}"
    text = f"sources: {{orders: {{url: '{server.url}', items: data, {fields}, {more}}}}}"
    return parse_sources(text).by_name["orders"]


async def ask(
    source: Source, place: Place = FIRST, *, bounds: Bounds = BOUNDS, tokens: dict[str, str] | None = None
) -> Page | None:
    """One page, from a client of its own."""
    async with HttpApi(hosts(TERMS, {}), bounds, tokens or {}) as api:
        return await api.page(source, place, returning=False)


async def test_pages_are_asked_for_by_their_cursors_and_the_last_only_when_it_changed(server: ApiServer) -> None:
    source = source_of(server)
    first = await ask(source)
    assert first is not None
    assert (sorted(first.items), first.following) == (["1", "2", "3"], "3")
    last = await ask(source, Place(1, first.following))
    assert last is not None
    assert (sorted(last.items), last.following) == (["4", "5"], None)
    known = Place(2, first.following, last.etag)
    assert await ask(source, known) is None
    server.fill(1)
    grown = await ask(source, known)
    assert grown is not None
    assert sorted(grown.items) == ["4", "5", "6"]
    assert [dict(request.query) for request in server.requests][:2] == [{"limit": "3"}, {"limit": "3", "after": "3"}]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(500), "answered 500"),
        (Answer(503), "answered 503"),
        (Answer(408), "answered 408"),
        (Answer(body=b'{"data": [{"id": 1, "sta'), "the answer is no JSON, or cut off"),
        (Answer(body=b"<h1>Maintenance</h1>"), "the answer is no JSON"),
        (Answer(body=b'{"data": ' + b"[" * 2000), "the answer is no JSON"),
        (Answer(body=b'{"data": []}' * 10, cut=90), "RemoteProtocolError"),
        (Answer(cut=0), "RemoteProtocolError"),
        (Answer(headers={"Content-Length": "many"}), "RemoteProtocolError"),
    ],
)
async def test_what_may_pass_is_tried_again(server: ApiServer, answer: Answer, words: str) -> None:
    server.faults.append(answer)
    with pytest.raises(NotNow, match=words) as caught:
        await ask(source_of(server))
    assert (caught.value.after, caught.value.failed) == (None, True)


@pytest.mark.parametrize(
    ("status", "headers", "after"),
    [
        (429, {"Retry-After": "120"}, timedelta(seconds=120)),
        (503, {"Retry-After": "7"}, timedelta(seconds=7)),
        (429, {"Retry-After": "0"}, timedelta(seconds=1)),
        (429, {"Retry-After": "9" * 400}, HOUR),
        (
            429,
            {"Retry-After": "Mon, 03 Aug 2026 07:01:30 GMT", "Date": "Mon, 03 Aug 2026 07:00:00 GMT"},
            timedelta(seconds=90),
        ),
        (429, {"Retry-After": "Mon, 03 Aug 1998 07:01:30 GMT"}, timedelta(seconds=1)),
        (429, {"Retry-After": "Mon, 03 Aug 9998 07:01:30 GMT"}, HOUR),
        (429, {"Retry-After": "soon"}, None),
        (429, {"Retry-After": "-5"}, None),
        (429, {}, None),
    ],
)
async def test_a_pause_that_is_asked_for_is_kept_within_bounds_and_no_failure(
    server: ApiServer, status: int, headers: dict[str, str], after: timedelta | None
) -> None:
    server.faults.append(Answer(status, headers=headers))
    source = source_of(server)
    async with HttpApi(hosts(TERMS, {}, lambda: 1000.0), BOUNDS, {}) as api:
        with pytest.raises(NotNow) as caught:
            await api.page(source, FIRST, returning=False)
        assert (caught.value.after, caught.value.failed) == (after, False)
        if after is not None:
            with pytest.raises(Busy, match="asked for a pause"):
                await api.page(source, FIRST, returning=False)
            assert len(server.requests) == 1, "nor does anybody else of this process ask before"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(404), "answered 404"),
        (Answer(401), "answered 401"),
        (Answer(204, b""), "answered 204"),
        (Answer(body=b"x" * 5000), "more than 4096 bytes"),
        (Answer(headers={"Content-Encoding": "gzip"}), "answers packed"),
        (in_json({"orders": []}), "schema changed: data is missing instead of a list; the answer has orders"),
        (in_json([1]), "schema changed: data is missing instead of a list; the answer has list"),
        (in_json({"data": {}}), "schema changed: data is object instead of a list"),
        (in_json({"data": []}), "schema changed: paging.after, which tells the next page, is missing"),
        (in_json({"data": [], "paging": {"after": {}}}), "which tells the next page, is object"),
        (in_json({"data": [], "paging": {"after": "a\u0000"}}), "has no 1 to 4096 printable characters"),
        (in_json({"data": [7], "paging": {"after": None}}), "in 1 of 1 items: an item is integer instead of an object"),
        (
            in_json({"data": [{"id": "1", "amount": True, "note": 5, "total": 5, "state": "new"}]}),
            r"schema changed in 1 of 1 items: .*status is missing instead of text \(1\).*; new there: state, total",
        ),
        (in_json({"data": [{"id": 1, "status": "new", "amount": None}]}), "amount is null instead of number"),
    ],
)
async def test_what_somebody_has_to_change_is_refused_with_the_reason(
    server: ApiServer, answer: Answer, words: str
) -> None:
    server.faults.append(answer)
    with pytest.raises(Refused, match=words):
        await ask(source_of(server))


async def test_every_change_of_the_schema_is_told(server: ApiServer) -> None:
    server.faults.append(in_json({"data": [{"id": 1, "status": 5}, {"id": 2, "status": 6, "amount": "1.5"}]}))
    with pytest.raises(Refused) as caught:
        await ask(source_of(server))
    assert str(caught.value) == (
        "schema changed in 2 of 2 items: status is integer instead of text (2);"
        " amount is missing instead of number (1); amount is text instead of number (1)"
    )


@pytest.mark.parametrize("fault", [Answer(silent=True), Answer(body=b"{" + b" " * 99, silent=True)])
async def test_a_slow_answer_ends_at_its_deadline(server: ApiServer, fault: Answer) -> None:
    server.faults.append(fault)
    with pytest.raises(NotNow, match=r"gave no whole answer within 0\.3 s"):
        await ask(source_of(server), bounds=HASTY)


async def test_a_server_that_is_not_there_is_tried_again() -> None:
    async with api_server() as server:
        source = source_of(server)
    with pytest.raises(NotNow, match="ConnectError"):
        await ask(source)


async def test_redirects_are_followed_on_the_same_host_and_never_in_a_loop(server: ApiServer) -> None:
    server.faults.append(redirect("/moved?limit=3"))
    found = await ask(source_of(server))
    assert found is not None
    assert len(found.items) == 3
    server.fixed = {"/orders": redirect("/round"), "/round": redirect("/orders")}
    with pytest.raises(NotNow, match="leads from one place to the next"):
        await ask(source_of(server))
    assert len(server.requests) == 8


async def test_it_goes_nowhere_but_where_it_was_told_to(server: ApiServer) -> None:
    async with api_server() as other:
        for where in (
            f"http://{other.host}/orders",
            f"https://{server.host}/orders",
            f"//{other.host}/orders",
            f"http://user:pass@{server.host}/orders",
            "file:///etc/passwd",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1",
            "",
        ):
            server.faults.append(redirect(where))
            with pytest.raises(Refused, match=f"redirects to .*only {server.host} is allowed|is no URL"):
                await ask(source_of(server))
        assert other.requests == []


async def test_a_redirect_that_is_allowed_is_followed_without_the_token(server: ApiServer) -> None:
    async with api_server() as other:
        other.fill(2)
        server.faults.append(redirect(f"http://{other.host}/orders"))
        source = source_of(server, f"next: paging.after, parameter: after, redirects: ['{other.host}']")
        found = await ask(source, tokens={"orders": "secret"})
        assert found is not None
        assert len(found.items) == 2
        assert server.requests[0].headers["authorization"] == "Bearer secret"
        assert "authorization" not in other.requests[0].headers


async def test_who_is_half_way_through_redirects_goes_before_those_who_come_for_the_first_time(
    server: ApiServer,
) -> None:
    now = 1000.0
    pacer = hosts(replace(TERMS, rate=1.0), {}, lambda: now)
    async with api_server() as other, HttpApi(pacer, BOUNDS, {}) as api:
        other.fill(2)
        for _ in range(6):
            with suppress(Busy):
                async with pacer.passing(other.host, returning=False):
                    pass
        now += 2
        server.faults.append(redirect(f"http://{other.host}/orders"))
        source = source_of(server, f"next: paging.after, parameter: after, redirects: ['{other.host}']")
        with pytest.raises(Busy):
            await api.page(source_of(other), FIRST, returning=False)
        found = await api.page(source, FIRST, returning=False)
    assert found is not None
    assert len(found.items) == 2


async def test_a_next_page_may_be_a_url_in_the_answer_or_in_its_link_header(server: ApiServer) -> None:
    in_body = source_of(server, "next: optional next")
    by_link = source_of(server, "token: TOKEN")
    server.faults.append(in_json({"data": [], "next": "/orders?page=2"}))
    page = await ask(in_body)
    assert page == Page({}, f"http://{server.host}/orders?page=2")
    server.faults.append(in_json({"data": []}))
    assert await ask(in_body, Place(1, page.following)) == Page({})
    assert dict(server.requests[-1].query) == {"page": "2"}
    server.faults.append(in_json({"data": []}, Link='</orders?page=3>; rel="next", </orders>; rel="first"'))
    page = await ask(by_link)
    assert page == Page({}, f"http://{server.host}/orders?page=3")


@pytest.mark.parametrize(
    ("following", "words"),
    [
        ("http://elsewhere.example/orders", "names a next page to .*elsewhere.example"),
        ("/orders?limit=3", "names itself as its next page"),
    ],
)
async def test_a_next_page_elsewhere_or_the_same_again_is_refused(
    server: ApiServer, following: str, words: str
) -> None:
    server.faults.append(in_json({"data": [], "next": following}))
    with pytest.raises(Refused, match=words):
        await ask(source_of(server, "next: next"))


async def test_a_host_that_fails_again_and_again_is_left_alone(server: ApiServer) -> None:
    source = source_of(server)
    server.faults.extend([Answer(500)] * 3)
    async with HttpApi(hosts(TERMS, {}), BOUNDS, {}) as api:
        for _ in range(3):
            with pytest.raises(NotNow):
                await api.page(source, FIRST, returning=False)
        with pytest.raises(Busy, match=r"is left alone: .* answered 500") as caught:
            await api.page(source, FIRST, returning=False)
    assert timedelta(seconds=10) < caught.value.after <= timedelta(seconds=30)
    assert len(server.requests) == 3


async def test_what_is_told_holds_no_secret_of_the_query(server: ApiServer) -> None:
    server.faults.append(Answer(500))
    with pytest.raises(NotNow) as caught:
        await ask(source_of(server), Place(1, "a-secret-cursor"))
    assert str(caught.value) == f"http://{server.host}/orders answered 500"
