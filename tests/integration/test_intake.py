"""The HTTP door over a real broker: what it takes, what it answers, and what it refuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from penstock_jobs import KINDS
from tests.support.intake import WELCOME, Intake, head, intake_process
from tests.support.scrapes import connected, get
from tests.support.waiting import eventually
from tests.support.working import LEVELS, depth, empty, foreign, take, take_all

pytestmark = pytest.mark.timeout(120)

BAD_MAIL = {"to": "nobody", "template": "welcome"}


@pytest.fixture(scope="module")
def intake(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intake]:
    """One intake without tokens for all tests here; it remembers few keys and takes small bodies."""
    folder = tmp_path_factory.mktemp("intake")
    limits = {"INTAKE_MAX_BODY": "5000", "INTAKE_MAX_BATCH_BODY": "20000", "INTAKE_MAX_BATCH": "20"}
    with intake_process(url, folder, **limits) as intake:
        yield intake
    asyncio.run(empty(url, "jobs.email", *LEVELS))


@pytest.fixture(scope="module")
def hasty(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intake]:
    """Another that gives a request two seconds."""
    with intake_process(url, tmp_path_factory.mktemp("hasty"), INTAKE_REQUEST_TIMEOUT="2s") as intake:
        yield intake


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", *LEVELS)


# --- one job ----------------------------------------------------------------------------------------------------------


async def test_a_job_is_answered_with_its_id_once_the_broker_has_it(intake: Intake, url: str) -> None:
    said = await intake.ask("POST", "/v1/jobs/email.send", WELCOME, x_request_id="r-1")
    assert (said.status, said.json["kind"], said.headers["x-request-id"]) == (202, "email.send", "r-1")
    assert UUID(said.json["id"]).version == 7
    async with foreign(url) as channel:
        message = await take(channel, "jobs.email")
    assert (message.message_id, message.type, message.app_id) == (said.json["id"], "email.send", "intake")
    assert message.correlation_id == "r-1"
    assert b'"ada@example.org"' in message.body


async def test_options_are_query_parameters(intake: Intake, url: str) -> None:
    soon = (datetime.now(UTC) + timedelta(seconds=40)).strftime("%Y-%m-%dT%H:%M:%SZ")
    for options in (
        "delay=40",
        "delay=40s&correlation_id=order-7",
        f"at={soon}&expires=1h",
        f"delay=1m&expires={soon}",
    ):
        said = await intake.ask("POST", f"/v1/jobs/email.send?{options}", WELCOME)
        assert said.status == 202, said
    assert await depth(url, "jobs.email") == 0
    async with foreign(url) as channel:
        waiting = [message for level in LEVELS for message in await take_all(channel, level)]
    assert len(waiting) == 4
    assert sum(message.correlation_id == "order-7" for message in waiting) == 1
    assert sum("penstock-expires" in message.headers for message in waiting) == 2


@pytest.mark.parametrize(
    ("path", "status", "problem"),
    [
        ("email.sned", 404, "unknown-kind"),
        ("Email.Send%00", 404, "unknown-kind"),
        ("email.send?dealy=5m", 422, "options"),
        ("email.send?delay=5m&delay=6m", 422, "options"),
        ("email.send?delay=-5", 422, "options"),
        ("email.send?delay=200d", 422, "options"),
        ("email.send?delay=5m&at=2030-01-01T00:00:00Z", 422, "options"),
        ("email.send?at=2030-01-01T00:00:00", 422, "options"),
        ("email.send?expires=soon", 422, "options"),
        ("email.send?correlation_id=%0a", 422, "options"),
    ],
)
async def test_what_cannot_be_meant_is_refused_in_words(intake: Intake, path: str, status: int, problem: str) -> None:
    said = await intake.ask("POST", f"/v1/jobs/{path}", WELCOME)
    assert (said.status, said.problem) == (status, problem)
    assert said.json["request_id"] == said.headers["x-request-id"]


async def test_a_misspelled_kind_is_told_its_neighbour(intake: Intake) -> None:
    said = await intake.ask("POST", "/v1/jobs/email.sned", WELCOME)
    assert "did you mean email.send?" in said.json["detail"]


async def test_arguments_that_do_not_fit_are_told_where_and_nothing_of_their_values(intake: Intake, url: str) -> None:
    said = await intake.ask("POST", "/v1/jobs/email.send", {**BAD_MAIL, "values": 7, "order_id": ""})
    assert (said.status, said.problem) == (422, "schema")
    assert [error["at"] for error in said.json["errors"]] == ["to", "values", "order_id"]
    assert "nobody" not in said.text
    assert await depth(url, "jobs.email") == 0


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"to": NaN}', b"[" * 2000, b'{"a":' * 800 + b"1" + b"}" * 800, b"\x00"],
    ids=["empty", "half", "list", "text", "binary", "NaN", "deep", "deep objects", "zero"],
)
async def test_a_body_that_is_no_object_is_refused(intake: Intake, body: bytes) -> None:
    said = await intake.ask("POST", "/v1/jobs/email.send", body)
    assert said.status in (400, 422), said
    assert said.problem in ("not-json", "schema")


async def test_a_kind_that_no_queue_takes_is_503_and_not_lost(intake: Intake) -> None:
    said = await intake.ask("POST", "/v1/jobs/credit.add", {"user": 1, "amount": 1})
    assert (said.status, said.problem, said.headers["retry-after"]) == (503, "unroutable", "5")


# --- the request itself -----------------------------------------------------------------------------------------------


async def test_bodies_have_a_limit_said_or_not(intake: Intake, url: str) -> None:
    large = {**WELCOME, "values": {"text": "x" * 6000}}
    said = await intake.ask("POST", "/v1/jobs/email.send", large)
    assert (said.status, said.problem) == (413, "too-large")
    endless = head("POST", "/v1/jobs/email.send", {"host": "localhost", "content-type": "application/json"} | CHUNKED)
    said = await intake.say(endless + b"400\r\n" + b" " * 1024 + b"\r\n" + b"2000\r\n" + b" " * 8192 + b"\r\n0\r\n\r\n")
    assert (said.status, said.problem) == (413, "too-large")
    assert await depth(url, "jobs.email") == 0


CHUNKED = {"transfer-encoding": "chunked", "connection": "close"}


async def test_a_large_body_is_refused_before_it_is_sent(intake: Intake) -> None:
    headers = {
        "host": "localhost",
        "content-type": "application/json",
        "content-length": "99999999",
        "expect": "100-continue",
    }
    said = await intake.say(head("POST", "/v1/jobs/email.send", headers | {"connection": "close"}))
    assert (said.status, said.problem) == (413, "too-large")


@pytest.mark.parametrize(
    ("headers", "status", "problem"),
    [
        ({"content_type": "text/plain"}, 415, "media-type"),
        ({"content_type": "application/x-www-form-urlencoded"}, 415, "media-type"),
        ({"content_type": ""}, 415, "media-type"),
        ({"content_encoding": "gzip"}, 415, "media-type"),
        ({"idempotency_key": ""}, 400, "malformed"),
        ({"idempotency_key": "x" * 256}, 400, "malformed"),
        ({"idempotency_key": "caf\u00e9"}, 400, "malformed"),
        ({"host": "evil.example"}, 421, "misdirected"),
        ({"host": "localhost.evil.example"}, 421, "misdirected"),
    ],
)
async def test_headers_that_cannot_be_meant(intake: Intake, headers: dict[str, str], status: int, problem: str) -> None:
    said = await intake.ask("POST", "/v1/jobs/email.send", WELCOME, **headers)
    assert (said.status, said.problem) == (status, problem)


async def test_a_request_id_of_any_form_is_replaced(intake: Intake) -> None:
    for strange in ("a b", "x" * 500, "<script>", "caf\u00e9"):
        said = await intake.ask("GET", "/v1/kinds", x_request_id=strange)
        assert said.status == 200
        assert len(said.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    "request_", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /" + b"x" * 20_000, b"A\r\n" * 9000]
)
async def test_what_is_no_http_is_answered_as_a_problem(intake: Intake, request_: bytes) -> None:
    said = await intake.say(request_)
    assert (said.status, said.problem) == (400, "malformed")


async def test_two_lengths_do_not_smuggle_a_second_request(intake: Intake) -> None:
    headers = {"host": "localhost", "content-type": "application/json", "content-length": "5", "Content-Length": "2"}
    said = await intake.say(
        head("POST", "/v1/jobs/email.send", headers) + b"{}GET /v1/kinds HTTP/1.1\r\nhost: x\r\n\r\n"
    )
    assert (said.status, said.problem) == (400, "malformed")


@pytest.mark.parametrize(
    ("method", "path", "status", "problem"),
    [
        ("GET", "/", 404, "not-found"),
        ("GET", "/v1", 404, "not-found"),
        ("GET", "/v1/jobs/some-id", 404, "unknown-job"),
        ("GET", "/docs/../settings.py", 404, "not-found"),
        ("PUT", "/v1/jobs/email.send", 405, "method"),
        ("DELETE", "/v1/kinds", 405, "method"),
    ],
)
async def test_paths_and_methods_that_are_not_there(
    intake: Intake, method: str, path: str, status: int, problem: str
) -> None:
    said = await intake.ask(method, path)
    assert (said.status, said.problem) == (status, problem)


async def test_a_client_that_sends_too_slowly_is_answered_and_cut_off(hasty: Intake) -> None:
    headers = {"host": "localhost", "content-type": "application/json", "content-length": "500"}
    said = await hasty.say(head("POST", "/v1/jobs/email.send", headers) + b'{"to":')
    assert (said.status, said.problem) == (408, "slow")
    assert (await hasty.ask("GET", "/v1/kinds")).status == 200


async def test_a_client_that_says_nothing_is_hung_up_on(hasty: Intake) -> None:
    async def hung_up(begun: bytes) -> bytes:
        async with asyncio.timeout(40), connected(hasty.port) as (reader, writer):
            writer.write(begun)
            with contextlib.suppress(ConnectionError):
                return await reader.read()
        return b""

    refused = head("PUT", "/v1/kinds", {"host": "localhost", "content-length": "100"})
    silent, half, answered = await asyncio.gather(hung_up(b""), hung_up(b"GET /v1/kinds HT"), hung_up(refused + b"x"))
    assert (silent, half) == (b"", b"")
    assert answered.startswith(b"HTTP/1.1 405 ")


# --- idempotency ------------------------------------------------------------------------------------------------------


async def test_a_key_is_one_job_however_often_it_comes(intake: Intake, url: str) -> None:
    asked = [intake.ask("POST", "/v1/jobs/email.send", WELCOME, idempotency_key="order-1") for _ in range(8)]
    said = await asyncio.gather(*asked)
    assert {answer.status for answer in said} == {202}
    assert len({answer.json["id"] for answer in said}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in said) == 1
    assert await depth(url, "jobs.email") == 1


async def test_the_same_key_with_other_arguments_is_a_conflict(intake: Intake, url: str) -> None:
    first = await intake.ask("POST", "/v1/jobs/email.send", WELCOME, idempotency_key="order-2")
    respelled = dict(reversed(WELCOME.items()))
    assert (await intake.ask("POST", "/v1/jobs/email.send", respelled, idempotency_key="order-2")).status == 202
    other = await intake.ask("POST", "/v1/jobs/email.send", {**WELCOME, "order_id": "B"}, idempotency_key="order-2")
    assert (first.status, other.status, other.problem) == (202, 409, "conflict")
    assert await depth(url, "jobs.email") == 1


async def test_a_key_whose_job_was_refused_is_free_again(intake: Intake, url: str) -> None:
    refused = await intake.ask("POST", "/v1/jobs/email.send?delay=200d", WELCOME, idempotency_key="order-3")
    other = await intake.ask("POST", "/v1/jobs/email.send", {**WELCOME, "order_id": "B"}, idempotency_key="order-3")
    assert (refused.status, other.status) == (422, 202)
    assert await depth(url, "jobs.email") == 1


# --- batches ----------------------------------------------------------------------------------------------------------


async def batch(intake: Intake, *jobs: Any) -> tuple[int, list[dict[str, Any]]]:
    """Submit *jobs* together; the status, and the results."""
    said = await intake.ask("POST", "/v1/jobs", {"jobs": jobs})
    return said.status, said.json["results"]


def mail(**more: Any) -> dict[str, Any]:
    """One job of a batch."""
    return {"kind": "email.send", "args": WELCOME, **more}


async def test_a_batch_that_is_taken(intake: Intake, url: str) -> None:
    status, results = await batch(intake, *[mail() for _ in range(20)])
    assert status == 202
    async with foreign(url) as channel:
        messages = await take_all(channel, "jobs.email")
    assert [result["id"] for result in results] == [message.message_id for message in messages]


async def test_each_job_of_a_batch_is_answered_for_itself(intake: Intake, url: str) -> None:
    status, results = await batch(
        intake,
        mail(idempotency_key="b-1"),
        mail(args=BAD_MAIL),
        mail(kind="email.sned"),
        mail(kind="credit.add", args={"user": 1, "amount": 1}),
        mail(delay="200d"),
        mail(dealy="5m"),
        "not a job",
        mail(idempotency_key="b-1"),
        mail(idempotency_key="b-1", args={**WELCOME, "order_id": "B"}),
        mail(args={**WELCOME, "values": {"x": "x" * 6000}}),
        mail(args={**WELCOME, "values": {"x": 10**30}}),
        mail(delay=40),
    )
    assert status == 207
    assert [one["status"] for one in results] == [202, 422, 404, 503, 422, 422, 422, 202, 409, 413, 202, 202]
    assert results[0]["id"] == results[7]["id"]
    assert results[7]["again"] is True
    assert await depth(url, "jobs.email") == 2


@pytest.mark.parametrize(
    ("value", "status", "problem"),
    [
        ({"jobs": []}, 422, "schema"),
        ({"jobs": {}}, 422, "schema"),
        ({"jobs": [mail()], "delay": "5m"}, 422, "schema"),
        ([mail()], 400, "not-json"),
        ({"jobs": [mail()] * 21}, 413, "too-large"),
        ({"jobs": ["x" * 20_000]}, 413, "too-large"),
    ],
)
async def test_a_batch_that_is_none(intake: Intake, value: Any, status: int, problem: str) -> None:
    said = await intake.ask("POST", "/v1/jobs", value)
    assert (said.status, said.problem) == (status, problem)


# --- what can be read -------------------------------------------------------------------------------------------------


async def test_the_kinds_are_listed_with_schemas_and_examples_that_are_taken(intake: Intake) -> None:
    kinds = (await intake.ask("GET", "/v1/kinds")).json["kinds"]
    assert [kind["kind"] for kind in kinds] == [kind.name for kind in KINDS]
    for known, told in zip(KINDS, kinds, strict=True):
        assert told["description"]
        assert told["schema"]["type"] == "object"
        assert told["examples"]
        for example in told["examples"]:
            jobs = {"kind": known.name, "args": example, "delay": "1h"}
            assert (await batch(intake, jobs))[0] == 202


async def test_the_description_has_a_path_for_each_kind_and_no_loose_reference(intake: Intake) -> None:
    said = await intake.ask("GET", "/openapi.json")
    spec = said.json
    assert {f"/v1/jobs/{kind.name}" for kind in KINDS} < set(spec["paths"])
    assert not list(loose(spec, spec))
    assert "$defs" not in said.text


def loose(node: Any, spec: Any) -> Iterator[str]:
    """References in *node* that lead nowhere in *spec*."""
    if isinstance(node, list):
        for part in node:
            yield from loose(part, spec)
    elif isinstance(node, dict):
        if "$ref" in node:
            found = spec
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = None if found is None else found.get(part)
            if found is None:
                yield node["$ref"]
        for part in node.values():
            yield from loose(part, spec)


async def test_the_page_and_all_it_loads_come_from_the_intake(intake: Intake) -> None:
    page = await intake.ask("GET", "/docs")
    assert page.status == 200
    assert "http" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js"):
        assert f"docs/{name}" in page.text
        assert (await intake.ask("GET", f"/docs/{name}")).status == 200


async def test_requests_and_publishes_are_counted(intake: Intake) -> None:
    await intake.ask("POST", "/v1/jobs/email.send", WELCOME)
    await intake.ask("GET", "/nowhere/at/all")

    async def counted() -> bool:
        page = await get(intake.metrics_port, "/metrics")
        taken = page.value('penstock_http_requests_total{route="/v1/jobs/{kind}",status="202"}')
        lost = page.value('penstock_http_requests_total{route="none",status="404"}')
        return bool(taken and lost and page.value('penstock_published_total{kind="email.send",result="confirmed"}'))

    await eventually(counted)
    assert (await get(intake.metrics_port, "/healthz")).status == 200
    assert (await get(intake.metrics_port, "/readyz")).status == 200
