"""Hostile input: every bad message is a dead letter or refused, the worker lives, its neighbours are served."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from penstock import Done, Handlers, Job, JobKind
from penstock.events import ConsumingEnded, JobFinished, LinkLost
from tests.support.working import declare, foreign, put, take, working

BIG = 10 * 1024 * 1024


@dataclass
class Mail:
    to: str


def _handlers() -> Handlers:
    handlers = Handlers()

    @handlers.on(JobKind("email.send", Mail))
    async def send(job: Job[Mail]) -> str:
        return job.args.to

    return handlers


GOOD = b'{"to": "ada@example.org"}'

BODIES = {
    "malformed": (b'{"to": ', "decode"),
    "truncated": (GOOD[:-2], "decode"),
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, "decode"),
    "NaN": (b'{"to": "a", "n": NaN}', "decode"),
    "infinity": (b'{"to": "a", "n": -Infinity}', "decode"),
    "not UTF-8": (b'{"to": "\xff\xfe"}', "decode"),
    "lone surrogate": (b'{"to": "\\ud800"}', "decode"),
    "100,000 deep": (b'{"to": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "decode"),
    "empty": (b"", "decode"),
    "array": (b"[1, 2]", "decode"),
    "string": (b'"text"', "decode"),
    "null": (b"null", "decode"),
    "pickle": (b"\x80\x04\x95\x10\x00\x00\x00", "decode"),
    "10 MiB": (b'{"to": "' + b"x" * BIG + b'"}', "too-large"),
    "wrong type": (b'{"to": 5}', "schema"),
    "field missing": (b"{}", "schema"),
}


async def test_each_bad_body_is_a_dead_letter_with_its_reason_and_the_next_job_runs(vhost_url: str) -> None:
    await declare(vhost_url)
    async with foreign(vhost_url) as channel, working(vhost_url, _handlers(), binds=["email.*"]) as worker:
        for name, (body, _) in BODIES.items():
            await put(channel, "email.send", body, message_id=name)
        await put(channel, "email.send", GOOD, message_id="neighbour")
        found: dict[str | None, tuple[bytes, Any]] = {}
        while found.keys() != BODIES.keys():  # a letter whose confirm takes long comes twice
            letter = await take(channel, "jobs.email.dead")
            found[letter.message_id] = letter.body, letter.headers["penstock-reason"]
        finished = await worker.until(JobFinished, len(BODIES) + 1)
    assert found == BODIES
    assert {event.id for event in finished if event.outcome == Done("ada@example.org")} == {"neighbour"}
    assert not worker.of(LinkLost)
    assert not worker.of(ConsumingEnded)


HEADERS: dict[str, dict[str, Any]] = {
    "attempt is text": {"penstock-attempt": "NaN"},
    "attempt below zero": {"penstock-attempt": -1},
    "attempt beyond counting": {"penstock-attempt": 2**63 - 1},
    "attempt is a bool": {"penstock-attempt": True},
    "attempt is a table": {"penstock-attempt": {"a": {"b": [1, 2]}}},
    "copy is text": {"penstock-copy": "many"},
    "history is no list": {"penstock-history": {"a": 1}},
    "history of other things": {"penstock-history": [1, {"a": 2.5}, True]},
    "expires is text": {"penstock-expires": "tomorrow"},
    "due long ago": {"penstock-due": -5},
    "published in the year 9999": {"penstock-published": 253402300799999},
    "origin is a number": {"penstock-origin": 7},
    "sequence forged": {"penstock-seq": 1},
    "deaths forged": {"x-death": [{"queue": "jobs.email", "reason": "expired", "count": 10**6}]},
    "deliveries forged": {"x-delivery-count": 10**6},
    "copies to others": {"CC": ["email.other"], "BCC": ["email.other"]},
    "trace of another type": {"traceparent": 5},
    "30 KiB of headers": {f"h{n}": "x" * 1000 for n in range(30)},
}


async def test_strange_headers_do_not_keep_a_good_job_from_running(vhost_url: str) -> None:
    await declare(vhost_url)
    async with foreign(vhost_url) as channel, working(vhost_url, _handlers(), binds=["email.*"]) as worker:
        for name, headers in HEADERS.items():
            await put(channel, "email.send", GOOD, message_id=name, headers=headers)
        finished = await worker.until(JobFinished, len(HEADERS))
    done = {event.id for event in finished if isinstance(event.outcome, Done)}
    assert done == set(HEADERS)
    assert not worker.of(LinkLost)


async def test_a_failed_job_with_strange_headers_is_retried_and_buried_without_them(vhost_url: str) -> None:
    """The copy keeps the producer's own headers, and nothing that would break it or let it be forged."""
    handlers = Handlers()

    @handlers.on(JobKind("email.send", dict))
    async def send(_: Job[dict[str, Any]]) -> None:
        raise ValueError("x" * BIG)

    await declare(vhost_url)
    async with foreign(vhost_url) as channel, working(vhost_url, handlers):
        headers = {name: value for given in HEADERS.values() for name, value in given.items()}
        headers |= {"penstock-attempt": 4, "mine": "kept"}
        await put(channel, "email.send", b"{}", message_id="a", headers=headers, user_id=_user(vhost_url), priority=9)
        letter = await take(channel, "jobs.email.dead")
    kept = set(letter.headers)
    assert {"penstock-reason", "penstock-error", "penstock-origin"} <= kept
    assert kept.isdisjoint({"CC", "BCC", "x-death"})
    assert letter.headers.get("x-delivery-count", 0) == 0, "3.10 adds its own, from 0"
    assert letter.headers["penstock-origin"] == "jobs email.send"
    assert len(str(letter.headers["penstock-error"])) <= 1024
    assert letter.user_id is None
    assert letter.expiration is None
    assert sum(len(str(value)) for value in letter.headers.values()) <= 32 * 1024


async def test_a_kind_that_its_queue_is_not_bound_to_is_dead_whatever_its_key(vhost_url: str) -> None:
    await declare(vhost_url)
    async with foreign(vhost_url) as channel, working(vhost_url, _handlers(), binds=["email.*"]):
        for kind in ("credit.add", "email.send.more", "../etc/passwd", "\u202e.x", "#", "*"):
            await put(channel, "email.send", GOOD, type=kind)
        reasons = [(await take(channel, "jobs.email.dead")).headers["penstock-reason"] for _ in range(6)]
    assert reasons == ["unbound-kind"] * 6


async def test_an_unknown_kind_waits_out_the_grace_of_a_deploy_and_is_then_dead(vhost_url: str) -> None:
    await declare(vhost_url)
    grace = timedelta(seconds=1)
    async with foreign(vhost_url) as channel, working(vhost_url, _handlers(), unknown_kind_grace=grace) as worker:
        await put(channel, "email.sned", GOOD)
        letter = await take(channel, "jobs.email.dead")
    assert letter.headers["penstock-reason"] == "unknown-kind"
    assert [type(event.outcome).__name__ for event in worker.finished] == ["Snoozed", "Dead"]


@pytest.mark.parametrize("timestamp", [datetime(2554, 1, 1), datetime(9999, 12, 31)])
async def test_a_timestamp_far_ahead_is_harmless(vhost_url: str, timestamp: datetime) -> None:
    await declare(vhost_url)
    async with foreign(vhost_url) as channel, working(vhost_url, _handlers()) as worker:
        await put(channel, "email.send", GOOD, timestamp=timestamp)
        (finished,) = await worker.until(JobFinished)
    assert finished.outcome == Done("ada@example.org")


async def test_a_body_said_to_be_compressed_is_dead_not_unpacked(vhost_url: str) -> None:
    await declare(vhost_url)
    async with foreign(vhost_url) as channel, working(vhost_url, _handlers()):
        await put(channel, "email.send", b"\x1f\x8b\x08", content_encoding="gzip")
        letter = await take(channel, "jobs.email.dead")
    assert letter.headers["penstock-reason"] == "decode"


def _user(url: str) -> str:
    return url.split("//")[1].split(":")[0]
