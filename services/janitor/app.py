"""The janitor put together: ``penstock worker services.janitor.app:build``."""

from __future__ import annotations

from datetime import timedelta

from penstock import ConfigError, Handlers, Worker
from penstock.settings import Settings as PenstockSettings
from penstock_jobs import PURGE_EXPIRED
from services.janitor.handlers import Janitor
from services.janitor.rules import read_rules
from services.janitor.settings import Settings

#: What a run may take beyond its budget: the batch of each that is under way.
_GRACE = timedelta(minutes=1)


def build() -> Worker:
    """The janitor that ``JANITOR_*`` describes, for the database of ``PENSTOCK_STORE_URL``. Raises ``ConfigError``."""
    settings, penstock = Settings.read(), PenstockSettings.load()
    rules, url = read_rules(settings.rules), penstock.store
    if rules.tables and url.scheme not in ("sqlite", "postgresql"):
        raise ConfigError(f"{settings.rules} has rules for tables, and {url.shown} holds none: set PENSTOCK_STORE_URL")
    janitor = Janitor(rules, url, penstock.store_terms.retention, settings.budget)
    handlers = Handlers()
    handlers.on(PURGE_EXPIRED, timeout=settings.budget + _GRACE, once="lease")(janitor.purge_expired)
    return Worker(handlers, queue="maintenance", name="janitor", slots=1)
