"""A worker whose effect is a row that says when it was written: ``tests.support.timed_apps:build``, to be killed."""

from __future__ import annotations

import time

from penstock import Event, Handlers, Job, JobKind, Transaction, Worker
from penstock.connect import store_for
from penstock.events import ConsumingStarted
from penstock.storing import EffectStore
from tests.support.apps import Ledger
from tests.support.once_apps import query

NOTE: JobKind[dict[str, object]] = JobKind("email.note", dict)

handlers = Handlers()


@handlers.on(NOTE, once="effect")
async def note(job: Job[dict[str, object]], tx: Transaction) -> None:
    """Write down the machine's monotonic time."""
    await tx.execute("INSERT INTO notes VALUES (%s, %s)", (job.id, time.monotonic()))


def build() -> Worker:
    """A worker for them."""
    worker = Worker(handlers, queue="email", slots=4)
    worker.events.subscribe(_tell)
    return worker


async def with_notes(url: str) -> str:
    """*url*, once its store is migrated and has a table of notes."""
    store = store_for(url)
    await store.migrate()
    await store.open()
    assert isinstance(store, EffectStore)
    async with store.effect() as effect:
        await effect.transaction.execute("CREATE TABLE notes (job TEXT, at REAL)")
    await store.close()
    return url


async def notes(url: str) -> list[tuple[str, float]]:
    """Every note: the job, and when it ran."""
    return await query(url, "SELECT job, at FROM notes")


def _tell(event: Event) -> None:
    if isinstance(event, ConsumingStarted):
        Ledger().write("consuming")
