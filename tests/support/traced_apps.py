"""A worker whose handlers say in which span they run, wherever they run, and log a line there."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from opentelemetry.trace import get_current_span

from penstock import Handlers, Job, JobKind, RetryPolicy, Worker
from penstock.events import ConsumingStarted
from tests.support.apps import Ledger

LOOP = JobKind("email.loop", dict)
THREAD = JobKind("email.thread", dict)
CHILD = JobKind("email.child", dict)

QUICK = RetryPolicy(max_attempts=3, first=timedelta(seconds=1), factor=1)

handlers = Handlers()


@handlers.on(LOOP, retry=QUICK)
async def in_the_loop(job: Job[dict[str, Any]]) -> str:
    """On the event loop; fails as often as it is told to."""
    if job.attempt <= job.args.get("failures", 0):
        raise ValueError(f"attempt {job.attempt} failed")
    return _span()


@handlers.on(THREAD)
def in_a_thread(_: Job[dict[str, Any]]) -> str:
    """In a thread."""
    return _span()


@handlers.on(CHILD, isolation="process")
def in_a_child(_: Job[dict[str, Any]]) -> str:
    """In a child process."""
    return _span()


def build() -> Worker:
    """A worker for all of it."""
    worker = Worker(handlers, queue="email")
    worker.events.subscribe(lambda _: Ledger().write("consuming"), ConsumingStarted)
    return worker


def _span() -> str:
    """The current trace and span, as in a ``traceparent``."""
    logging.getLogger("handler").warning("working")
    current = get_current_span().get_span_context()
    return f"{current.trace_id:032x}-{current.span_id:016x}"
