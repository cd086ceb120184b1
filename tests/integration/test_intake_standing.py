"""How the HTTP door keeps its connection, against a scripted broker: what a real one does for a moment only."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from pika import spec

from penstock import AsyncPublisher, ConnectionLost
from penstock.testing.free_ports import free_ports
from services.intake.standing import Standing
from tests.support.amqp_peer import amqp_peer


async def test_a_broker_that_falls_silent_as_it_is_reached_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.brokers.channels.ANSWER_WITHIN", 1)
    async with amqp_peer() as peer:
        answer = peer.answers.pop(spec.Confirm.Select)
        publisher = AsyncPublisher(peer.url)
        standing = Standing(publisher)
        staying = asyncio.create_task(standing.stay())
        try:
            await peer.saw(spec.Confirm.Select, 2)
            peer.answers[spec.Confirm.Select] = answer
            await publisher.connect()
            standing.check()
            assert not staying.done()
        finally:
            staying.cancel()
            await asyncio.wait([staying])
            await publisher.close()


async def test_a_broker_that_is_never_reached_is_given_up() -> None:
    [port] = free_ports(1)
    publisher = AsyncPublisher(f"amqp://127.0.0.1:{port}", connect_timeout=timedelta(seconds=1))
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        await Standing(publisher).stay()
    await publisher.close()
