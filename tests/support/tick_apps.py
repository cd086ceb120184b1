"""A worker for ticks that last, to be run as a real process and killed: ``tests.support.tick_apps:build``.

Each run writes ``begun`` into the file of effects, waits until the file that its argument names is there, and writes
``done``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from penstock import Handlers, Job, JobKind, Worker
from penstock.events import ConsumingStarted, Event
from tests.support.apps import Do, Ledger

TICK = JobKind("email.tick", Do)

handlers = Handlers()


@handlers.on(TICK, once="lease")
async def tick(job: Job[Do]) -> None:
    """Last until the gate is open."""
    Ledger().write("begun", job)
    while not Path(job.args.gate).exists():  # noqa: ASYNC110,ASYNC240 - the gate is opened by another process
        await asyncio.sleep(0.02)
    Ledger().write("done", job)


def build() -> Worker:
    """A worker for them."""
    worker = Worker(handlers, queue="email", slots=4)
    worker.events.subscribe(_tell)
    return worker


def _tell(event: Event) -> None:
    if isinstance(event, ConsumingStarted):
        Ledger().write("consuming")
