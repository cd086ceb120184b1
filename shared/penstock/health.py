"""What a process shows over HTTP: ``/metrics``, ``/healthz``, ``/readyz``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from penstock.events import Events
from penstock.health_port import Answer, HealthPort
from penstock.readiness import Readiness
from penstock.settings import Settings

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric
    from prometheus_client.registry import Collector

#: Seconds for which a page of metrics is handed out again: a thousand scrapes per second cost as much as one.
FRESH = 1.0

#: How names begin of what is in the default registry from the start, and of the library's own.
_OURS = ("process_", "python_", "penstock_")

_OPENMETRICS = "application/openmetrics-text"

_log = logging.getLogger("penstock.health")


@contextlib.asynccontextmanager
async def served(
    settings: Settings, events: Events, readiness: Readiness, role: str, *more: Collector
) -> AsyncIterator[None]:
    """Serve the port that *settings* name during the block; nothing at all, not even a subscriber, when they name none.

    *role*: as for ``metrics.Metrics``; *more*: whose metrics are shown beside those. Raises ``ConfigError`` when the
    port cannot be had.
    """
    if settings.metrics_port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, ProcessCollector  # 10 MB and 50 ms that not everybody needs

    from penstock import metrics

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics.subscribe(events, registry, role=role)
    for collector in (*more, _Yours()):
        registry.register(collector)
    events.subscribe(readiness, *readiness.KINDS)
    pages = Pages(registry)
    routes = {"/metrics": pages.page, "/healthz": _alive, "/readyz": _ready(readiness)}
    port = HealthPort(settings.metrics_host, settings.metrics_port, routes)
    await port.open()
    structlog.stdlib.get_logger("penstock").info("serving metrics", host=port.host, port=port.port)
    try:
        yield
    finally:
        port.close()
        pages.close()


class _Yours:
    """The metrics of handlers, which are where prometheus-client puts them: in its default registry."""

    def collect(self) -> Iterable[Metric]:
        """See prometheus-client. Without those that the page has anyhow, or that are about the interpreter."""
        from prometheus_client import REGISTRY

        found: list[Metric] = []
        try:
            found.extend(family for family in REGISTRY.collect() if not family.name.startswith(_OURS))
        except Exception:  # noqa: BLE001 - from any collector of a handler's; alerts must not go blind by it
            _log.exception("metrics of handlers cannot be read; the page has the others")
        return found


class Pages:
    """The pages of metrics, written in a thread of their own and kept for a second. One event loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._writer = ThreadPoolExecutor(1, "metrics")
        self._pages: dict[bool, tuple[float, asyncio.Future[Answer]]] = {}

    def page(self, accept: str) -> Answer | asyncio.Future[Answer]:
        """The page in the form that *accept* asks for: OpenMetrics, else Prometheus' text."""
        loop = asyncio.get_running_loop()
        opened = _OPENMETRICS in accept.lower()
        made, page = self._pages.get(opened, (0.0, None))
        if page is None or (page.done() and loop.time() - made >= FRESH):
            page = loop.run_in_executor(self._writer, self._written, opened)
            self._pages[opened] = loop.time(), page
        return page.result() if page.done() else page

    def close(self) -> None:
        """Write no more."""
        self._writer.shutdown(wait=False, cancel_futures=True)

    def _written(self, opened: bool) -> Answer:
        from prometheus_client import exposition
        from prometheus_client.openmetrics import exposition as openmetrics

        try:
            if opened:
                page: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]  # has no types
                return Answer(200, page, openmetrics.CONTENT_TYPE_LATEST)
            return Answer(200, exposition.generate_latest(self._registry), exposition.CONTENT_TYPE_PLAIN_0_0_4)
        except Exception:  # noqa: BLE001 - from any collector of the registry; it must not end the port
            _log.exception("the metrics cannot be written")
            return Answer(500, b"the metrics cannot be written; the log says why\n")


def _alive(_: str) -> Answer:
    """That the loop turns is all it takes to say so: the broker's troubles are no reason to be restarted."""
    return Answer(200, b"alive\n")


def _ready(readiness: Readiness) -> Callable[[str], Answer]:
    def answer(_: str) -> Answer:
        reason = readiness.reason
        return Answer(200, b"ready\n") if reason is None else Answer(503, f"not ready: {reason}\n".encode())

    return answer
