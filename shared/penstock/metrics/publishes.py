"""Jobs published, by publishers and by relays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # events of any type

from penstock.events import OutboxBacklog, Published, Relayed, RelayParked, RelayPutOff
from penstock.metrics.group import SHORT, Handle, Words
from penstock.metrics.meters import counter, gauge, histogram

#: What a publish may end with: the class of the error in lower case, else ``confirmed``.
RESULTS = (
    *("confirmed", "unroutable", "nacked", "unconfirmed", "toolarge"),
    *("connectionlost", "accessrefused", "topologymismatch"),
)


class Publishes:
    """Jobs published by publishers."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._results = counter(
            "penstock_published_total", "Publishes, by the broker's answer or the error's class.", "kind", "result"
        )
        self._seconds = histogram("penstock_publish_seconds", "From publish to its answer.", SHORT, "kind")
        self.families = (self._results, self._seconds)
        self.handles: Mapping[type[Any], Handle] = {Published: self._published}
        self._begun: set[str] = set()

    def _published(self, event: Published) -> None:
        kind = self._words.kinds.word(event.kind)
        if kind not in self._begun:
            self._begin(kind)
        self._results.child(kind, self._words.results.word(event.result)).value += 1
        self._seconds.child(kind).observe(event.seconds)

    def _begin(self, kind: str) -> None:
        """Every result begins at 0: an increase from nothing is none to Prometheus."""
        self._begun.add(kind)
        for result in RESULTS:
            self._results.child(kind, self._words.results.word(result))


class Outboxes:
    """What a relay finds and does."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._relayed = counter("penstock_outbox_relayed_total", "Jobs taken from the outbox.", "kind", "result")
        self._seconds = histogram("penstock_outbox_batch_seconds", "From taking a batch to marking it.", SHORT, "kind")
        self._waiting = gauge("penstock_outbox_waiting_jobs", "Jobs that wait in the outbox.")
        self._oldest = gauge("penstock_outbox_oldest_seconds", "How long the oldest of them has waited; 0 when none.")
        self._parked = gauge("penstock_outbox_parked_jobs", "Jobs that cannot be published as they are.")
        self.families = (self._relayed, self._seconds, self._waiting, self._oldest, self._parked)
        self.handles: Mapping[type[Any], Handle] = {
            Relayed: self._published,
            RelayParked: lambda event: self._count(event.kind, "parked", 1),
            RelayPutOff: lambda event: self._count(event.kind, "put_off", event.count),
            OutboxBacklog: self._found,
        }

    def _published(self, event: Relayed) -> None:
        self._count(event.kind, "published", event.count)
        self._seconds.child(self._words.kinds.word(event.kind)).observe(event.seconds)

    def _count(self, kind: str, result: str, count: int) -> None:
        self._relayed.child(self._words.kinds.word(kind), result).value += count

    def _found(self, event: OutboxBacklog) -> None:
        self._waiting.child().value = event.waiting
        self._oldest.child().value = event.oldest or 0.0
        self._parked.child().value = event.parked
