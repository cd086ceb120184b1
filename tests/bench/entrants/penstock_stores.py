"""Penstock with a store, as its users use it: effects once, leases, the relay; and the same worker without a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import uvloop

from penstock import Event, Handlers, Job, Transaction
from penstock.connect import broker_for, outbox_for, store_for
from penstock.events import JobFinished, Relayed
from penstock.outcome import Done
from penstock.relay import Relay
from tests.bench.cells import ACCOUNTS, CELLS, Cell
from tests.bench.entrants.common import LIMIT, Figures, broker_url, run_role
from tests.bench.entrants.crowd import Count, together
from tests.bench.entrants.penstock_ import NOTE, Note, declare, worker_of

UPDATE = "UPDATE accounts SET balance = balance + %s WHERE id = %s"
_TIMEOUT = timedelta(seconds=30)


def account_of(job_id: str) -> int:
    """The account that a job changes: by the random end of its id, so that jobs rarely meet."""
    return int(job_id[-6:], 16) % ACCOUNTS


def handlers_of(strength: str) -> Handlers:
    """One handler on the loop: with an effect in its transaction, or with none."""
    handlers = Handlers()

    async def nothing(_job: Job[Note]) -> None: ...

    async def credit(job: Job[Note], tx: Transaction) -> None:
        await tx.execute(UPDATE, (1, account_of(job.id)))

    if strength == "effect":
        handlers.on(NOTE, timeout=_TIMEOUT, once="effect")(credit)
    else:
        handlers.on(NOTE, timeout=_TIMEOUT, once="lease" if strength == "lease" else None)(nothing)
    return handlers


async def work(cell: Cell, count: Count) -> None:
    """One worker, until all of them have finished every job."""
    worker = worker_of(handlers_of(cell.strength), cell.slots)

    def finished(event: Event) -> None:
        if isinstance(event, JobFinished) and isinstance(event.outcome, Done):
            count.tick()

    worker.events.subscribe(finished, JobFinished)
    store = store_for(connections=cell.slots) if cell.store else None
    await _until(count.complete(), lambda stop: worker.run(broker_for(broker_url()), stop=stop, store=store))


async def _until(end: Awaitable[object], run: Callable[[asyncio.Event], Awaitable[object]]) -> None:
    """Run until *end*; what is run ending before it is an error's end."""
    stop = asyncio.Event()
    ending = asyncio.ensure_future(end)
    ending.add_done_callback(lambda _: stop.set())
    try:
        await asyncio.wait_for(run(stop), LIMIT)
    finally:
        ending.cancel()


def working(cell: Cell, total: int) -> Figures:
    """The workers of *cell*."""
    return together(cell.processes, total, lambda count: uvloop.run(work(cell, count)))


def relay(total: int) -> Figures:
    """One relay, which empties a filled outbox: rows a second from its first batch that is marked to its last."""

    async def main() -> Figures:
        await declare()
        instants: list[tuple[float, int]] = []
        last = asyncio.Event()

        def relayed(event: Event) -> None:
            if isinstance(event, Relayed):
                instants.append((time.perf_counter(), event.count))
                if sum(jobs for _, jobs in instants) >= total:
                    last.set()

        relay = Relay(outbox_for(), broker_for(broker_url()))
        relay.events.subscribe(relayed)
        await _until(last.wait(), lambda stop: relay.run(stop=stop))
        jobs = sum(jobs for _, jobs in instants[1:])
        return {"rate": jobs / (instants[-1][0] - instants[0][0])}

    return uvloop.run(main())


ROLES = {
    **{name: partial(working, cell) for name, cell in CELLS.items()},
    "relay_postgres": relay,
    "relay_sqlite": relay,
}

if __name__ == "__main__":
    run_role(ROLES)
