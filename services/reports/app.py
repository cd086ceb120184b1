"""The reports service put together: ``penstock worker services.reports.app:build``."""

from __future__ import annotations

from datetime import timedelta

from penstock import Handlers, RetryPolicy, Worker
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
        retry=_policy(settings),
        timeout=timedelta(seconds=settings.timeout),
        isolation="process",
        memory=settings.memory * 1024 * 1024,
    )
    register(Reports(settings.source_dir, settings.output_dir).sales_report)
    grace = timedelta(seconds=settings.unknown_kind_grace)
    return Worker(handlers, queue="reports", slots=settings.slots, unknown_kind_grace=grace)


def _policy(settings: Settings) -> RetryPolicy:
    first, cap = timedelta(seconds=settings.retry_first), timedelta(seconds=settings.retry_cap)
    return RetryPolicy(max_attempts=settings.attempts, first=first, factor=settings.retry_factor, cap=cap)
