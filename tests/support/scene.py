"""A process's metrics under a test: events go in, a scrape is looked at."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from penstock import Event, Events, metrics


class Scene:
    """Events of a process of some *role*, and what a scrape of its registry finds."""

    def __init__(self, role: str = "worker", *first: Event) -> None:
        self.registry = CollectorRegistry()
        self.events = Events()
        metrics.subscribe(self.events, self.registry, role=role)
        self.emit(*first)

    def emit(self, *events: Event) -> None:
        for event in events:
            self.events.emit(event)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"penstock_{name}", labels)

    def values(self, name: str, label: str) -> set[str]:
        """The values of a *label* that the samples of a family have."""
        found = (sample for family in self.registry.collect() for sample in family.samples)
        return {sample.labels[label] for sample in found if sample.name == f"penstock_{name}"}

    def page(self) -> str:
        return generate_latest(self.registry).decode()
