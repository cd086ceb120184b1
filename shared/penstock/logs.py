"""Logging set up once for a process: one line per fact on standard error, for people or as JSON."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any  # log lines carry values of any type

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from penstock import tracing
from penstock.log_fields import harmless
from penstock.running import JOB
from penstock.settings import LogFormat, LogLevel, Settings

#: Libraries whose own words add nothing to ours: pika logs seven errors and a traceback for one refused connection.
_QUIET = ("pika", "aio_pika", "aiormq", "pamqp")


def setup(settings: Settings, *, default: LogLevel = LogLevel.INFO) -> None:
    """Send every log line of this process, whoever logs it, to standard error in one form. Idempotent.

    *default*: the least level when nobody set one.
    """
    as_json = settings.log_format is LogFormat.JSON or (
        settings.log_format is LogFormat.AUTO and not sys.stderr.isatty()
    )
    shared = _shared(as_json)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(as_json)],
        )
    )
    logging.root.handlers = [handler]
    logging.root.setLevel((settings.log_level or default).value)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # What asyncio says below this is about sockets that went, which the drivers report in one line.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _shared(as_json: bool) -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True)
        if as_json
        else structlog.processors.TimeStamper("%H:%M:%S"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _of_the_job,
        harmless,
    ]


def _of_the_job(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """A line that is written while a handler runs, by whomever, says for which job."""
    job = JOB.get()
    if job is not None:
        for name, value in (("job_id", job.id), ("kind", job.kind), ("queue", job.queue), ("attempt", job.attempt)):
            line.setdefault(name, value)
        trace = tracing.ids()
        if trace is not None:
            line["trace_id"], line["span_id"] = trace
    return line


def _renderers(as_json: bool) -> Sequence[Processor]:
    if as_json:
        return (_with_pid, structlog.processors.JSONRenderer(serializer=_json))
    colors = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    plain = structlog.dev.plain_traceback
    return (structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=24, exception_formatter=plain),)


def _with_pid(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Tell the processes of one service apart; people see it in the connection's name instead."""
    line["pid"] = os.getpid()
    return line


def _json(line: EventDict, **_: Any) -> str:
    return orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
