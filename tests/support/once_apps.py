"""A worker whose handlers have their effects once, to be run as a real process and killed at its failpoints.

``penstock worker tests.support.once_apps:build`` on the queue that ``PENSTOCK_TEST_QUEUE`` names. Effects in the
store's own database are rows of ``ledger``, which has no unique key; effects elsewhere are lines of a file.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from penstock import BlockingTransaction, Event, Handlers, Job, JobKind, RetryPolicy, Transaction, Worker
from penstock.connect import store_for
from penstock.events import ConsumingStarted
from penstock.storing import EffectStore
from tests.support.apps import Ledger

QUEUE = "PENSTOCK_TEST_QUEUE"
DEFAULT_QUEUE = "email"

INSERT = "INSERT INTO ledger VALUES (%s, %s, %s)"
LEDGER = "CREATE TABLE ledger (job TEXT, user_id INTEGER, amount INTEGER)"


@dataclass
class Credit:
    """Give *user* so much more; fail so many attempts first."""

    user: int
    amount: int
    fail_attempts: int = 0


def kinds(queue: str) -> tuple[JobKind[Credit], JobKind[Credit], JobKind[Credit], JobKind[Credit]]:
    """The kinds of *queue*: effects in the loop, in a thread, in a child process, and an effect elsewhere."""
    loop, thread, child, lease = (JobKind(f"{queue}.{name}", Credit) for name in ("loop", "thread", "child", "lease"))
    return loop, thread, child, lease


def build() -> Worker:
    """A worker for all four."""
    queue = os.environ.get(QUEUE, DEFAULT_QUEUE)
    loop, thread, child, lease = kinds(queue)
    handlers, quick = Handlers(), RetryPolicy(max_attempts=3, first=timedelta(seconds=1), factor=1)
    handlers.on(loop, once="effect", retry=quick)(_in_the_loop)
    handlers.on(thread, once="effect", retry=quick)(_in_a_thread)
    handlers.on(child, once="effect", retry=quick, isolation="process")(_in_a_thread)
    handlers.on(lease, once="lease", retry=quick)(_elsewhere)
    worker = Worker(handlers, queue=queue, slots=4)
    worker.events.subscribe(_tell)
    return worker


async def with_a_ledger(url: str) -> str:
    """*url*, once its store is migrated and has a ledger."""
    store = store_for(url)
    await store.migrate()
    await store.open()
    if isinstance(store, EffectStore):
        async with store.effect() as effect:
            await effect.transaction.execute(LEDGER)
    await store.close()
    return url


async def ledger(url: str) -> Counter[str]:
    """How often each job had its effect in the database at *url*."""
    rows = await query(url, "SELECT job FROM ledger")
    return Counter(job for (job,) in rows)


async def query(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What *statement* finds in the database at *url*."""
    store = store_for(url)
    assert isinstance(store, EffectStore)
    await store.open()
    try:
        async with store.effect() as effect:
            return (await effect.transaction.execute(statement)).fetchall()
    finally:
        await store.close()


async def _in_the_loop(job: Job[Credit], tx: Transaction) -> dict[str, int]:
    await tx.execute(INSERT, (job.id, job.args.user, job.args.amount))
    _fail(job)
    await asyncio.sleep(0)
    return {"added": job.args.amount}


def _in_a_thread(job: Job[Credit], tx: BlockingTransaction) -> dict[str, int]:
    tx.execute(INSERT, (job.id, job.args.user, job.args.amount))
    _fail(job)
    return {"added": job.args.amount}


async def _elsewhere(job: Job[Credit]) -> None:
    _fail(job)
    Ledger().write("done", job)


def _fail(job: Job[Credit]) -> None:
    if job.attempt <= job.args.fail_attempts:
        raise OSError(f"attempt {job.attempt} fails")


def _tell(event: Event) -> None:
    if isinstance(event, ConsumingStarted):
        Ledger().write("consuming")
