"""Whether a process does its work now, learned from its events, and in one line why it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from penstock.events import (
    ConnectFailed,
    ConsumingEnded,
    ConsumingStarted,
    DrainStarted,
    Event,
    LinkClosed,
    LinkLost,
    LinkOpened,
    StoreAnswered,
    StoreLost,
    StoreOpened,
)
from penstock.printable import printable, shortened

_MAX_REASON = 300
_NOT_YET = "not yet"


class Readiness:
    """Ready is: every one of *connections* stands, *queue* (None: none) is consumed, the store answers, no drain.

    A subscriber of ``Events``; any thread may call it, and ask.
    """

    #: The events it learns from. Of the others, which come with every job, it is not to be told.
    KINDS: ClassVar[tuple[type[Event], ...]] = (
        *(LinkOpened, LinkLost, LinkClosed, ConnectFailed, ConsumingStarted, ConsumingEnded, DrainStarted),
        *(StoreLost, StoreOpened, StoreAnswered),
    )

    def __init__(self, connections: Sequence[str], queue: str | None = None) -> None:
        self._draining = False
        self._away: dict[str, str] = {}
        #: Why each connection does not stand.
        self._broken = dict.fromkeys(connections, _NOT_YET)
        self._connections = frozenset(connections)
        self._queue = queue
        self._idle: str | None = _NOT_YET if queue else None

    @property
    def reason(self) -> str | None:
        """Why the process is not ready, on one line; None when it is."""
        return None if (found := self._found()) is None else shortened(printable(found), _MAX_REASON)

    def __call__(self, event: Event) -> None:
        """Learn from *event*."""
        match event:
            case LinkOpened(name=name):
                self._broken.pop(name, None)
            case LinkLost(name=name, reason=reason) | ConnectFailed(name=name, reason=reason):
                self._lost(name, reason)
            case LinkClosed(name=name):
                self._lost(name, "closed on our side")
            case ConsumingStarted():
                self._idle = None
            case ConsumingEnded(reason=reason):
                self._idle = reason
            case StoreLost(store=store, reason=reason):
                self._away[store] = reason
                self._idle = _NOT_YET if self._queue else None
            case StoreOpened(store=store) | StoreAnswered(store=store):
                self._away.pop(store, None)
            case DrainStarted():
                self._draining = True
            case _:
                pass

    def _found(self) -> str | None:
        if self._draining:
            return "draining"
        for store, reason in list(self._away.items()):
            return f"{store} does not answer: {reason}"
        for name, reason in list(self._broken.items()):
            return f"not connected as {name}: {reason}"
        return None if self._idle is None else f"not consuming {self._queue}: {self._idle}"

    def _lost(self, name: str, reason: str) -> None:
        if name in self._connections:
            self._broken[name] = reason
        elif "://" in name:  # a store goes by its URL
            self._away[name] = reason
