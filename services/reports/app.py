"""The reports service put together: ``penstock worker services.reports.app:build``."""

from __future__ import annotations

from penstock import Handlers, Worker
from penstock_jobs import SALES_REPORT
from services.reports.handlers import Reports
from services.reports.settings import Settings


def build() -> Worker:
    """The reports service that ``REPORTS_*`` describes. Raises ``ConfigError``."""
    settings = Settings.read()
    handlers = Handlers()
    # Drawing a PDF is plain computing: in a thread it would hold up the worker's loop, and nothing could stop it.
    register = handlers.on(
        SALES_REPORT,
        retry=settings.retry_policy(),
        timeout=settings.timeout,
        isolation="process",
        memory=settings.memory * 1024 * 1024,
    )
    register(Reports(settings.source_dir, settings.output_dir).sales_report)
    return Worker(handlers, queue="reports", slots=settings.slots, unknown_kind_grace=settings.unknown_kind_grace)
