"""Services of ours as workers to be run as real processes and killed: ``tests.support.service_apps:digests``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstock import Event, Handlers, Worker
from penstock.connect import store_for
from penstock.events import ConsumingStarted
from services.janitor import app as janitor_app
from services.mailer.app import register_digest
from services.media import app as media_app
from services.sync import app as sync_app
from tests.support.apps import Ledger

#: Subscribers in a page.
PAGE = 100


def digests() -> Worker:
    """The mailer's digests on a queue of their own, without its mails: those stay where a test can count them."""
    handlers = Handlers()
    register_digest(handlers, store_for().shown.partition(":")[0], PAGE)
    return _telling(Worker(handlers, queue="digest", slots=4))


def janitor() -> Worker:
    """The janitor as it is."""
    return _telling(janitor_app.build())


def media() -> Worker:
    """The media service as it is."""
    return _telling(media_app.build())


@asynccontextmanager
async def sync() -> AsyncIterator[Worker]:
    """The sync as it is."""
    async with sync_app.build() as worker:
        yield _telling(worker)


def _telling(worker: Worker) -> Worker:
    worker.events.subscribe(_tell)
    return worker


def _tell(event: Event) -> None:
    if isinstance(event, ConsumingStarted):
        Ledger().write("consuming")
