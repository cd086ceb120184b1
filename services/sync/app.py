"""The sync put together: ``penstock worker services.sync.app:build``."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from penstock import ConfigError, Handlers, Worker
from penstock.service_tables import effect_store, tables
from penstock.settings import Settings as PenstockSettings
from penstock_jobs import SYNC_PULL
from services.sync.api import Bounds, HttpApi
from services.sync.handlers import Puller
from services.sync.hosts import hosts
from services.sync.settings import Settings
from services.sync.shelf import TABLES, DatabaseShelf
from services.sync.sources import Sources, read_sources

HOLDS = "what is pulled"

#: What a job may take beyond the deadline of its page: to keep it.
_GRACE = timedelta(seconds=60)


@asynccontextmanager
async def build() -> AsyncIterator[Worker]:
    """The sync that ``SYNC_*`` describes; its connections are closed after the drain. Raises ``ConfigError``."""
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request, with whatever its query holds
    settings = Settings.read()
    sources = read_sources(settings.sources)
    store = effect_store(PenstockSettings.load().store, HOLDS, connections=settings.slots)
    bounds = Bounds(settings.timeout, settings.max_bytes, settings.retry_after_cap)
    async with (
        HttpApi(hosts(settings.terms(), sources.rates), bounds, _tokens(sources)) as api,
        DatabaseShelf(store) as shelf,
    ):
        puller = Puller(sources, api, shelf, max_pages=settings.max_pages, stale_after=settings.stale_after)
        handlers = Handlers()
        register = handlers.on(
            SYNC_PULL, retry=settings.retry_policy(), timeout=settings.timeout + _GRACE, once="lease"
        )
        register(puller.pull)
        ready = tables(HOLDS, "python -m services.sync migrate", *TABLES)
        yield Worker(handlers, queue="sync", slots=settings.slots, ready=ready)


def _tokens(sources: Sources) -> dict[str, str]:
    """The bearer tokens by source. Raises ``ConfigError`` naming every variable that is missing."""
    wanted = {name: source.token for name, source in sources.by_name.items() if source.token is not None}
    missing = [
        f"{variable} is not set: source {name} takes its token from it"
        for name, variable in wanted.items()
        if not os.environ.get(variable, "").strip()
    ]
    if missing:
        raise ConfigError(*missing)
    return {name: os.environ[variable].strip() for name, variable in wanted.items()}
