"""The mailer put together: ``penstock worker services.mailer.app:build``."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from penstock import Handlers, Worker
from penstock.claims import StoreUrl
from penstock.pacing.rate_limits import Budgets, OwnBudgets
from penstock.service_tables import effect_store
from penstock.settings import Settings as PenstockSettings
from penstock_jobs import DAILY_DIGEST, SEND_EMAIL
from services.mailer.attachments import Attachments
from services.mailer.digest import Digests, refuse
from services.mailer.domains import domains
from services.mailer.handlers import Mailer
from services.mailer.settings import Settings
from services.mailer.shared_budgets import SharedBudgets
from services.mailer.smtp import SmtpPool, SmtpServer
from services.mailer.subscribers import SCHEMES
from services.mailer.templates import Templates

#: What a job may take beyond the deadline of its mail: to read files, to ask for room, to wait for a connection.
_GRACE = timedelta(seconds=30)

#: Connections to the database in which mailers keep a rate together; each is needed for a moment.
_CONNECTIONS = 4

_MIB = 1024 * 1024

_log = logging.getLogger("services.mailer")


@asynccontextmanager
async def build() -> AsyncIterator[Worker]:
    """The mailer that ``MAILER_*`` describes; its connections are closed after the drain. Raises ``ConfigError``."""
    settings = Settings.read()
    server = SmtpServer.parse(settings.smtp_url.get_secret_value())
    store = PenstockSettings.load().store
    async with (
        SmtpPool(server, settings.slots, settings.timeout) as post,
        _budgets(store, limited=bool(settings.throttle)) as budgets,
    ):
        files = Attachments(settings.attachments_dir, settings.attachments_max * _MIB)
        mailer = Mailer(post, Templates(), files, domains(settings.rules(), budgets), settings.sender)
        handlers = Handlers()
        register = handlers.on(
            SEND_EMAIL, retry=settings.retry_policy(), timeout=settings.timeout + _GRACE, once="lease"
        )
        register(mailer.send_email)
        register_digest(handlers, store.scheme, settings.digest_page)
        grace = settings.unknown_kind_grace
        yield Worker(handlers, queue="email", name="mailer", slots=settings.slots, unknown_kind_grace=grace)


@asynccontextmanager
async def _budgets(store: StoreUrl, *, limited: bool) -> AsyncIterator[Budgets]:
    """Budgets in *store*'s database; this process's own where that has none, and where nothing is *limited*."""
    if limited and store.scheme in SCHEMES:
        holds = "budgets of domains"
        async with SharedBudgets(effect_store(store, holds, connections=_CONNECTIONS), store.scheme) as shared:
            yield shared
        return
    if limited:
        _log.warning("each mailer keeps MAILER_THROTTLE by itself: %s cannot hold budgets", store.shown)
    yield OwnBudgets()


def register_digest(handlers: Handlers, scheme: str, page: int) -> None:
    """Let *handlers* take digests, *page* subscribers a job; without transactions in the store, refuse them."""
    if scheme in SCHEMES:
        handlers.on(DAILY_DIGEST, once="effect")(Digests(page).daily)
    else:
        handlers.on(DAILY_DIGEST, once="lease")(refuse)
