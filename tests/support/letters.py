"""Dead letters for tests: buried by a foreign client, read back by it, and commands run on them."""

from __future__ import annotations

import asyncio
from typing import Any  # header values, JSON

import aio_pika
import orjson

from penstock.connect import broker_for
from penstock.dead_letters import DeadLetters
from tests.support.commands import Finished, penstock_here
from tests.support.working import foreign, take_all

WORK, DEAD, AUDIT = "jobs.email", "jobs.email.dead", "jobs.dead.audit"


async def bury(url: str, count: int, **headers: Any) -> list[str]:
    """Put *count* dead letters into the queue and return their ids; the odd ones are of another kind."""
    story = {"penstock-reason": "exhausted", "penstock-attempt": 4, "penstock-error": "no", **headers}
    async with foreign(url) as channel:
        exchange = await channel.get_exchange("jobs.dead", ensure=False)
        for first in range(0, count, 1000):
            numbers = range(first, min(first + 1000, count))
            await asyncio.gather(*(exchange.publish(_letter(number, story), WORK) for number in numbers))
    return [str(number) for number in range(count)]


def _letter(number: int, story: dict[str, Any]) -> aio_pika.Message:
    kind = "email.odd" if number % 2 else "email.even"
    body = orjson.dumps({"n": number})
    return aio_pika.Message(body, delivery_mode=2, message_id=str(number), type=kind, headers=dict(story))


async def lying(url: str, queue: str = DEAD) -> list[str | None]:
    """The ids in *queue* in order, as another client sees them; they are taken out."""
    async with foreign(url) as channel:
        return [message.message_id for message in await take_all(channel, queue)]


async def dead(url: str, *words: str, **environment: str) -> Finished:
    """``penstock dead`` with *words* on the broker at *url*."""
    return await asyncio.to_thread(penstock_here, "dead", *words, RABBITMQ_URL=url, **environment)


async def told(url: str, *words: str, **environment: str) -> Any:
    """What ``penstock dead`` with *words* and ``--json`` says; it must succeed."""
    done = await dead(url, *words, "--json", **environment)
    assert done.code == 0, done.err
    return orjson.loads(done.out)


async def audit(url: str) -> list[dict[str, Any]]:
    """The entries of the audit, the oldest first; they stay."""
    async with DeadLetters(broker_for(url)) as letters:
        return [orjson.loads(entry.message.body) for entry in await letters.letters(AUDIT)]
