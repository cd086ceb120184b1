"""What the door counts of its requests, beside what the publisher counts of its jobs."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from prometheus_client import Counter, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from penstock.metrics.group import SHORT

#: The route of a request that no route takes: whatever is asked for adds no series.
NO_ROUTE = "none"


class Meters(Collector):
    """Counts requests by route and status."""

    def __init__(self) -> None:
        self._requests = Counter(
            "penstock_http_requests", "Requests, by route and status.", ["route", "status"], registry=None
        )
        self._seconds = Histogram(
            "penstock_http_request_seconds",
            "From a request's head to the end of its answer.",
            ["route"],
            buckets=SHORT,
            registry=None,
        )

    def count(self, route: str, status: int, started: float) -> None:
        """A request was answered; *started* by ``perf_counter``."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(perf_counter() - started)

    def collect(self) -> Iterator[Metric]:
        """What a registry asks for."""
        yield from self._requests.collect()
        yield from self._seconds.collect()
