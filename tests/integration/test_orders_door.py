"""The orders service at a door that is no intake, or has something in front of it that speaks for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from penstock import ConnectionLost, PenstockError, Receipt
from penstock_jobs import SEND_EMAIL, SendEmail
from services.orders.door import Door
from tests.support.api_server import Answer, ApiServer, api_server

MAIL = SEND_EMAIL.new(SendEmail(to="ada@example.org", template="welcome"), id="order-1")
TAKEN = Answer(202, b'{"results": [{"status": 202, "id": "job-1"}]}')


@pytest.fixture(name="server")
async def _server() -> AsyncIterator[ApiServer]:
    async with api_server() as server:
        yield server


async def take(server: ApiServer, patience: float) -> tuple[Sequence[Receipt | PenstockError], list[str]]:
    """What becomes of one mail at the door, and what is told meanwhile."""
    told: list[str] = []

    def taken() -> Sequence[Receipt | PenstockError]:
        with Door(f"http://{server.host}", None, timedelta(seconds=patience), told.append) as door:
            return door.take([MAIL])

    async with asyncio.timeout(20):
        return await asyncio.to_thread(taken), told


@pytest.mark.parametrize("asks", ["Wed, 21 Oct 2026 07:28:00 GMT", "soon", "-1", "²", "nan"])
async def test_a_door_that_does_not_say_in_seconds_when_to_come_again_is_asked_again_soon(
    server: ApiServer, asks: str
) -> None:
    server.faults += (Answer(503, b"later", {"Retry-After": asks}), TAKEN)
    answers, told = await take(server, 30)
    assert answers == [Receipt("job-1", "email.send")]
    assert told == [f"the door at http://{server.host} cannot be used: 503 later; next try in 0.5 s"]


async def test_nobody_waits_for_longer_than_their_patience_whatever_the_door_asks_for(server: ApiServer) -> None:
    server.fixed["/v1/jobs"] = Answer(503, b"later", {"Retry-After": "86400"})
    with pytest.raises(ConnectionLost, match="cannot be used: 503 later"):
        await take(server, 0.2)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"results": [1]}', b'{"results": []}'])
async def test_what_answers_but_is_no_intake_is_told_in_one_line(server: ApiServer, body: bytes) -> None:
    server.fixed["/v1/jobs"] = Answer(202, body)
    with pytest.raises(ConnectionLost, match=r"the door at http://127\.0\.0\.1:\d+ is no intake: it answers 202 "):
        await take(server, 1)
