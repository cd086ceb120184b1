"""The same jobs by hand: a consumer on Pika that has each job's transaction and then acks it, and no Penstock."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pika

from tests.bench.cells import COMPARED, Cell
from tests.bench.entrants.common import Figures, run_role
from tests.bench.entrants.crowd import Count
from tests.bench.entrants.pika_bare import Blocking, Wire
from tests.bench.entrants.transactions import Transact, best

QUEUE = "bench.hand"

#: Seconds until an ack is through the broker's channel, which forgets those it holds back when it is closed.
_ARRIVED_AFTER = 0.2


async def consume_all(transact: Transact, tasks: int, count: Count) -> None:
    """As many jobs at once as there are *tasks*, each acked when its transaction is committed."""
    wire = await Wire.open(QUEUE)
    jobs: asyncio.Queue[tuple[int, str, bytes]] = asyncio.Queue()

    def on_message(_channel: Any, method: Any, properties: pika.BasicProperties, body: bytes) -> None:
        jobs.put_nowait((method.delivery_tag, properties.message_id or "", body))

    async def lane() -> None:
        while count.begin():
            tag, job_id, body = await jobs.get()
            json.loads(body)
            await transact(job_id)
            wire.channel.basic_ack(tag)
            count.tick()

    await wire.consume(on_message)
    await asyncio.gather(*(lane() for _ in range(tasks)))
    await asyncio.sleep(_ARRIVED_AFTER)
    await wire.close()


def working(cell: Cell, total: int) -> Figures:
    """The consumers of *cell*."""
    return best(cell, total, consume_all)


def seed(_count: int) -> Figures:
    """Declare the queue and publish one job into it."""
    blocking = Blocking(QUEUE)
    blocking.publish()
    blocking.close()
    return {}


ROLES = {"seed": seed, **{cell.name: partial(working, cell) for cell in COMPARED}}

if __name__ == "__main__":
    run_role(ROLES)
