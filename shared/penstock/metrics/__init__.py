"""Metrics for Prometheus: what a process emits as events, counted and shown in a registry of its own or of yours."""

from __future__ import annotations

import os
import platform
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any  # events of any type

from penstock import __version__
from penstock.errors import ConfigError
from penstock.events import AcksSent, Event, Events, Published, StoreAsked
from penstock.metrics.group import Group, Handle, Words
from penstock.metrics.jobs import Jobs
from penstock.metrics.links import Connections, Consumers
from penstock.metrics.meters import About, Family, Histogram, Kind, Number, gauge
from penstock.metrics.publishes import Outboxes, Publishes
from penstock.metrics.schedules import Ticks
from penstock.metrics.stores import StoreUse

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["Metrics", "subscribe"]

#: Which groups each role shows. A new role, or a new group of a role, is a line here.
ROLES: Mapping[str, Sequence[Callable[[Words], Group]]] = {
    "worker": (Jobs, Consumers, Publishes, Connections, StoreUse),
    "relay": (Outboxes, Connections, StoreUse),
    "scheduler": (Ticks, Publishes, Connections),
    "publisher": (Publishes, Connections),
}

#: Events noted and not counted yet, at most.
_MOST_NOTED = 256

_Row = tuple[tuple[str, ...], float | Histogram]


class Metrics:
    """Counts the events of any number of ``Events`` and shows the counts to a registry.

    What it costs is bounded, in time and in memory, whatever comes from outside: a label takes the kinds that have
    handlers and a few dozen others, then says ``other``. The events that there are most of are only noted, and counted
    many at a time, which costs a fraction. Any thread may call it.
    """

    def __init__(self, role: str = "publisher") -> None:
        """*role*: ``worker``, ``relay``, ``scheduler`` or ``publisher``, which says what is shown."""
        self._role = role
        #: Noted and not counted yet. Appending is atomic; counting is done under the lock.
        self._noted: list[Event] = []
        self._begin()
        os.register_at_fork(after_in_child=_beginning_anew(self))

    def _begin(self) -> None:
        words = Words()
        groups = [*(group(words) for group in ROLES[self._role]), _Build(self._role)]
        self._families: list[Family[Any]] = [family for group in groups for family in group.families]
        self._handles = _merged(group.handles for group in groups)
        self._lock = threading.Lock()
        self._noted.clear()

    def watch(self, events: Events) -> None:
        """Count *events* from now on."""
        often = (Published, AcksSent, StoreAsked)
        for kind in self._handles:
            events.subscribe(self._note if kind in often else self, kind)

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        handle = self._handles.get(type(event))
        if handle is not None:
            with self._lock:
                handle(event)

    def _note(self, event: Event) -> None:
        noted = self._noted
        noted.append(event)
        if len(noted) >= _MOST_NOTED:
            with self._lock:
                self._catch_up()

    def _catch_up(self) -> None:
        """Count what was noted. Only with the lock."""
        batch = self._noted[:]
        del self._noted[: len(batch)]
        handles = self._handles
        for event in batch:
            handles[type(event)](event)

    def collect(self) -> Iterator[Metric]:
        """What a registry asks for at each scrape. Counting waits only while the numbers are copied."""
        with self._lock:
            self._catch_up()
            taken = [(family.about, [_row(*series) for series in family.series()]) for family in self._families]
        for about, rows in taken:
            yield _shown(about, rows)

    def describe(self) -> Iterator[Metric]:
        """What a registry asks for when this is registered: a second one of the same names is refused."""
        for family in self._families:
            yield _shown(family.about, ())


def subscribe(events: Events, registry: CollectorRegistry | None = None, *, role: str = "publisher") -> Metrics:
    """Count *events* from now on and show the counts in *registry* (None: prometheus-client's own).

    Let several publishers share one ``Events``, or let the returned value ``watch`` the others: a registry takes each
    metric once and raises ``ValueError`` for a second. Raises ``ConfigError`` without prometheus-client.
    """
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        raise ConfigError("metrics need prometheus-client: pip install prometheus-client") from None
    metrics = Metrics(role)
    (REGISTRY if registry is None else registry).register(metrics)
    metrics.watch(events)
    return metrics


class _Build:
    """Which program this is."""

    def __init__(self, role: str) -> None:
        info = gauge("penstock_build_info", "1; the labels tell which program this is.", "version", "python", "role")
        info.child(__version__, platform.python_version(), role).value = 1
        self.families = (info,)
        self.handles: Mapping[type[Any], Handle] = {}


def _beginning_anew(metrics: Metrics) -> Callable[[], None]:
    """A forked child has counted nothing, and a lock that another thread held would never be free there."""
    found = weakref.ref(metrics)

    def begin() -> None:
        if (alive := found()) is not None:
            alive._begin()

    return begin


def _merged(groups: Iterable[Mapping[type[Any], Handle]]) -> Mapping[type[Any], Handle]:
    by_type: dict[type[Any], list[Handle]] = {}
    for handles in groups:
        for kind, handle in handles.items():
            by_type.setdefault(kind, []).append(handle)
    return {kind: found[0] if len(found) == 1 else _each(found) for kind, found in by_type.items()}


def _each(handles: Sequence[Handle]) -> Handle:
    def handle(event: Event) -> None:
        for one in handles:
            one(event)

    return handle


def _row(labels: tuple[str, ...], series: Number | Histogram) -> _Row:
    return labels, series.value if isinstance(series, Number) else series.copy()


def _shown(about: About, rows: Iterable[_Row]) -> Metric:
    """One family in prometheus-client's form."""
    from prometheus_client.core import Metric

    metric = Metric(about.name, about.text, about.kind.value)
    for values, found in rows:
        labels = dict(zip(about.labels, values, strict=True))
        if isinstance(found, Histogram):
            _add_histogram(metric, labels, found)
        else:
            metric.add_sample(f"{about.name}_total" if about.kind is Kind.COUNTER else about.name, labels, found)
    return metric


def _add_histogram(metric: Metric, labels: dict[str, str], found: Histogram) -> None:
    seen = 0
    for bound, count in zip((*found.bounds, float("inf")), found.counts, strict=True):
        seen += count
        metric.add_sample(f"{metric.name}_bucket", {**labels, "le": _le(bound)}, seen)
    metric.add_sample(f"{metric.name}_sum", labels, found.total)
    metric.add_sample(f"{metric.name}_count", labels, seen)


def _le(bound: float) -> str:
    return "+Inf" if bound == float("inf") else repr(float(bound))
