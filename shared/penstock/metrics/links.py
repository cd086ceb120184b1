"""How a process stands with the broker: its connections, its consumer, its loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any  # events of any type

from penstock.events import (
    AcksSent,
    ConnectFailed,
    ConsumingEnded,
    ConsumingStarted,
    DrainStarted,
    LinkBlocked,
    LinkClosed,
    LinkLost,
    LinkOpened,
    LinkUnblocked,
    LoopLagged,
    LoopTurned,
    SettleFailed,
    StoreLost,
    WatchdogReopened,
    WorkerStarted,
)
from penstock.metrics.group import SHORT, Handle, Words
from penstock.metrics.meters import Family, counter, gauge, histogram

_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Connections:
    """Connections to the broker, by what they are for: the last word of their names."""

    def __init__(self, words: Words) -> None:
        self._words = words
        by = "connection"
        self._open = gauge("penstock_broker_connected", "Connections to the broker that stand.", by)
        self._blocked = gauge("penstock_broker_blocked", "1 while the broker takes nothing (an alarm), else 0.", by)
        self._again = counter("penstock_broker_reconnects_total", "Connections opened again after a loss.", by)
        self._lost = counter("penstock_broker_connections_lost_total", "Connections that ended against our will.", by)
        self._failed = counter("penstock_connect_failures_total", "Tries to connect that failed, the store's too.", by)
        self.families = (self._open, self._blocked, self._again, self._lost, self._failed)
        self.handles: Mapping[type[Any], Handle] = {
            LinkOpened: self._opened,
            LinkLost: self._ended,
            LinkClosed: self._ended,
            LinkBlocked: lambda event: self._set_blocked(event.name, 1),
            LinkUnblocked: lambda event: self._set_blocked(event.name, 0),
            ConnectFailed: self._refused,
        }
        #: How many connections of each use were lost and are not back.
        self._missing: dict[str, int] = {}

    def _opened(self, event: LinkOpened) -> None:
        use = self._use(event.name)
        self._open.child(use).value += 1
        self._blocked.child(use).value = 0
        again = self._again.child(use)
        self._lost.child(use)
        if self._missing.get(use, 0) > 0:
            self._missing[use] -= 1
            again.value += 1

    def _ended(self, event: LinkLost | LinkClosed) -> None:
        use = self._use(event.name)
        self._open.child(use).value -= 1
        self._blocked.child(use).value = 0
        if isinstance(event, LinkLost):
            self._lost.child(use).value += 1
            self._missing[use] = self._missing.get(use, 0) + 1

    def _set_blocked(self, name: str, value: float) -> None:
        self._blocked.child(self._use(name)).value = value

    def _refused(self, event: ConnectFailed) -> None:
        use = self._use(event.name)
        self._open.child(use)
        self._failed.child(use).value += 1

    def _use(self, name: str) -> str:
        """``mailer@host:7 consume`` is for consuming; a store goes by its URL."""
        return "store" if "://" in name else self._words.uses.word(name.rpartition(" ")[2])


class Consumers:
    """What a worker's consumer and its loop go through."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._open = gauge("penstock_consuming", "1 while a consumer is open, else 0.", "queue")
        self._lost = counter("penstock_consumers_lost_total", "Consumers lost: cancels, lost channels.", "queue")
        self._reopened = counter("penstock_watchdog_reopened_total", "Silent consumers opened anew.", "queue")
        self._unsettled = counter("penstock_settle_failures_total", "Tries to get a copy confirmed, in vain.", "queue")
        self._acks = histogram("penstock_ack_batch_jobs", "Deliveries that one write answers.", _BATCHES, "queue")
        self._lag = histogram("penstock_loop_lag_seconds", "How late the event loop comes round.", SHORT)
        self._blocked = counter("penstock_loop_blocked_total", "Times the event loop stood still for 2 s or more.")
        self.families = (
            *(self._open, self._lost, self._reopened, self._unsettled),
            *(self._acks, self._lag, self._blocked),
        )
        self.handles: Mapping[type[Any], Handle] = {
            WorkerStarted: self._begun,
            ConsumingStarted: lambda event: self._set(self._open, event.queue, 1),
            ConsumingEnded: self._ended,
            DrainStarted: lambda _: self._none(),
            StoreLost: lambda _: self._none(),
            WatchdogReopened: lambda event: self._count(self._reopened, event.queue),
            SettleFailed: lambda event: self._count(self._unsettled, event.queue),
            AcksSent: lambda event: self._acks.child(words.queues.word(event.queue)).observe(event.count),
            LoopTurned: lambda event: self._lag.child().observe(event.lag),
            LoopLagged: lambda _: self._count(self._blocked),
        }

    def _begun(self, event: WorkerStarted) -> None:
        self._words.queues.know([event.queue])
        for family in (self._open, self._lost, self._reopened, self._unsettled):
            family.child(event.queue)
        self._blocked.child()

    def _ended(self, event: ConsumingEnded) -> None:
        self._set(self._open, event.queue, 0)
        self._count(self._lost, event.queue)

    def _none(self) -> None:
        for _, series in self._open.series():
            series.value = 0

    def _set(self, family: Family[Any], queue: str, value: float) -> None:
        family.child(self._words.queues.word(queue)).value = value

    def _count(self, family: Family[Any], *queue: str) -> None:
        family.child(*(self._words.queues.word(name) for name in queue)).value += 1
