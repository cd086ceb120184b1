"""Workers for the doctor to look at: one in order, others with something wrong about them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from penstock import Handlers, Job, JobKind, Worker

KIND = JobKind("email.send", dict)


def build() -> Worker:
    """In order."""
    return _worker(timedelta(minutes=10))


def slow() -> Worker:
    """May run longer than the broker leaves a delivery unsettled."""
    return _worker(timedelta(minutes=40))


def trusting() -> Worker:
    """Counts on a consumer timeout above the broker's usual one."""
    return _worker(timedelta(minutes=40), consumer_timeout=timedelta(hours=4))


def broken() -> Worker:
    """Cannot be built."""
    raise OSError("no such mail server")


def forgetful() -> Worker:
    """Needs a store."""
    handlers = Handlers()

    @handlers.on(KIND, once="lease")
    async def send(_: Job[dict[str, object]]) -> None: ...

    return Worker(handlers, queue="email")


def _worker(timeout: timedelta, **options: Any) -> Worker:
    handlers = Handlers()

    @handlers.on(KIND, timeout=timeout)
    async def send(_: Job[dict[str, object]]) -> None: ...

    return Worker(handlers, queue="email", **options)
