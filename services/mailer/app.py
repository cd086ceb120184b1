"""The mailer put together: ``penstock worker services.mailer.app:build``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from penstock import Handlers, Worker
from penstock_jobs import SEND_EMAIL
from services.mailer.handlers import Mailer
from services.mailer.settings import Settings
from services.mailer.smtp import SmtpPool, SmtpServer
from services.mailer.templates import Templates


@asynccontextmanager
async def build() -> AsyncIterator[Worker]:
    """The mailer that ``MAILER_*`` describes; its connections are closed after the drain. Raises ``ConfigError``."""
    settings = Settings.read()
    timeout = timedelta(seconds=settings.timeout)
    server = SmtpServer.parse(settings.smtp_url.get_secret_value())
    async with SmtpPool(server, settings.slots, timeout) as post:
        mailer = Mailer(post, Templates(), settings.sender)
        handlers = Handlers()
        handlers.on(SEND_EMAIL, retry=settings.retry_policy(), timeout=timeout)(mailer.send_email)
        grace = timedelta(seconds=settings.unknown_kind_grace)
        yield Worker(handlers, queue="email", name="mailer", slots=settings.slots, unknown_kind_grace=grace)
