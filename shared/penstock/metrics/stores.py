"""The store, as a worker or a relay meets it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # events of any type

from penstock.events import StoreAnswered, StoreAsked, StoreLost, StoreOpened
from penstock.metrics.group import SHORT, Handle
from penstock.metrics.meters import counter, gauge, histogram


class StoreUse:
    """Whether the store answers, and how fast."""

    def __init__(self, _: object) -> None:
        self._up = gauge("penstock_store_up", "1 while the store answers, 0 while it does not.")
        self._seconds = histogram("penstock_store_seconds", "Round trips to the store.", SHORT, "operation")
        self._errors = counter("penstock_store_errors_total", "Round trips to the store that failed.", "operation")
        self._losses = counter("penstock_store_losses_total", "Times the store went away.")
        self.families = (self._up, self._seconds, self._errors, self._losses)
        self.handles: Mapping[type[Any], Handle] = {
            StoreOpened: self._opened,
            StoreAnswered: lambda _: self._set(1),
            StoreLost: self._lost,
            StoreAsked: self._asked,
        }

    def _set(self, up: float) -> None:
        self._up.child().value = up

    def _opened(self, _: StoreOpened) -> None:
        self._losses.child()
        self._set(1)

    def _lost(self, _: StoreLost) -> None:
        self._losses.child().value += 1
        self._set(0)

    def _asked(self, event: StoreAsked) -> None:
        self._seconds.child(event.operation).observe(event.seconds)
        self._errors.child(event.operation).value += event.failed
