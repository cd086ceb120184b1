"""The job whose handler runs here and now, for log lines that it writes and for whoever else asks."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any  # jobs of every argument type

from penstock.job import Job

#: Set around each run of a handler, for its task and for the thread or child process it may run in.
JOB: ContextVar[Job[Any] | None] = ContextVar("penstock_job", default=None)
