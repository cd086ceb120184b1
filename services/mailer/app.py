"""The mailer put together: ``penstock worker services.mailer.app:build``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstock import Handlers, Worker
from penstock.settings import Settings as PenstockSettings
from penstock_jobs import DAILY_DIGEST, SEND_EMAIL
from services.mailer.digest import Digests, refuse
from services.mailer.handlers import Mailer
from services.mailer.settings import Settings
from services.mailer.smtp import SmtpPool, SmtpServer
from services.mailer.subscribers import SCHEMES
from services.mailer.templates import Templates


@asynccontextmanager
async def build() -> AsyncIterator[Worker]:
    """The mailer that ``MAILER_*`` describes; its connections are closed after the drain. Raises ``ConfigError``."""
    settings = Settings.read()
    server = SmtpServer.parse(settings.smtp_url.get_secret_value())
    async with SmtpPool(server, settings.slots, settings.timeout) as post:
        mailer = Mailer(post, Templates(), settings.sender)
        handlers = Handlers()
        register = handlers.on(SEND_EMAIL, retry=settings.retry_policy(), timeout=settings.timeout, once="lease")
        register(mailer.send_email)
        register_digest(handlers, PenstockSettings.load().store.scheme, settings.digest_page)
        grace = settings.unknown_kind_grace
        yield Worker(handlers, queue="email", name="mailer", slots=settings.slots, unknown_kind_grace=grace)


def register_digest(handlers: Handlers, scheme: str, page: int) -> None:
    """Let *handlers* take digests, *page* subscribers a job; without transactions in the store, refuse them."""
    if scheme in SCHEMES:
        handlers.on(DAILY_DIGEST, once="effect")(Digests(page).daily)
    else:
        handlers.on(DAILY_DIGEST, once="lease")(refuse)
