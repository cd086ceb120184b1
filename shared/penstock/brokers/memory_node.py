"""The inside of the memory broker: exchanges, queues and bindings, and what happens to a message between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any  # arguments are AMQP values

from penstock.brokers.deaths import buried, deaths_of, is_cycle
from penstock.brokers.memory_queue import Activity, MemoryQueue, Stored
from penstock.brokers.timers import Timers
from penstock.errors import AccessRefused, BrokerError, ConfigError, TopologyMismatch, Unroutable
from penstock.message import Message
from penstock.topology.model import Binding, Exchange, Queue, Topology
from penstock.topology.names import AUDIT, SCHEDULER_VIEW
from penstock.topology.routing import Router

EXCHANGE_TYPES = frozenset({"topic", "direct", "fanout"})
EXCHANGE_ARGUMENTS = frozenset({"alternate-exchange"})
QUEUE_ARGUMENTS = frozenset(
    {
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-dead-letter-strategy",
        "x-delivery-limit",
        # Without effect on one node without length limits:
        "x-overflow",
        "x-queue-leader-locator",
        "x-queue-type",
        # Such a queue can be declared and published to, but not consumed:
        "x-single-active-consumer",
    }
)


class MemoryNode:
    """The state of one memory broker."""

    def __init__(self, timers: Timers) -> None:
        self.timers = timers
        self.activity = Activity()
        self.exchanges: dict[str, Exchange] = {}
        self.queues: dict[str, MemoryQueue] = {}
        #: Messages that a rule let go of, by queue and rule.
        self.dropped: Counter[tuple[str, str]] = Counter()
        self._bindings: dict[Binding, None] = {}
        self._router = Router(Topology())

    def declare(self, topology: Topology) -> None:
        """Add what is new in *topology*.

        Raises ``TopologyMismatch`` naming what exists otherwise, after adding what was missing except bindings; for a
        binding with a loose end; ``ConfigError`` for what this broker does not know, before anything is added.
        """
        _refuse_unknown(topology)
        differences = [_differs("exchange", wanted, self._exchange(wanted)) for wanted in topology.exchanges]
        differences += [_differs("queue", wanted, self._declared(wanted)) for wanted in topology.queues]
        found = [difference for difference in differences if difference]
        self._reroute()
        if found:
            raise TopologyMismatch("; ".join(found))
        for binding in topology.bindings:
            self._check_ends(binding)
            self._bindings[binding] = None
        self._reroute()

    def queue(self, name: str) -> MemoryQueue:
        """The queue called *name*. Raises ``TopologyMismatch`` when there is none."""
        if name not in self.queues:
            raise TopologyMismatch(f"no queue '{name}'")
        return self.queues[name]

    def delete_exchange(self, name: str) -> None:
        """Delete exchange *name* with its bindings; no error when it does not exist."""
        self.exchanges.pop(name, None)
        self._unbind(lambda binding: binding.source == name or (binding.to_exchange and binding.destination == name))

    def delete_queue(self, name: str) -> None:
        """Delete queue *name* with what it holds and cancel its consumers; no error when it does not exist."""
        queue = self.queues.pop(name, None)
        if queue is None:
            return
        self._unbind(lambda binding: not binding.to_exchange and binding.destination == name)
        self.dropped[name, "queue deleted"] += queue.close(TopologyMismatch(f"queue '{name}' was deleted"))

    def accept(self, message: Message, exchange: str, key: str) -> BrokerError | None:
        """Put *message* into every queue that *key* reaches; return why not when it was not taken."""
        if exchange and exchange not in self.exchanges:
            return TopologyMismatch(f"no exchange '{exchange}'")
        if exchange and self.exchanges[exchange].internal:
            return AccessRefused(f"exchange '{exchange}' is internal: it takes nothing from publishers")
        queues = self._router.queues(exchange, key)
        if not queues:
            return Unroutable(f"no queue is bound to '{key}' at exchange '{exchange}'")
        for queue in queues:
            self.queues[queue].put(Stored(message, exchange, key))
        return None

    def _bury(self, queue: MemoryQueue, stored: Stored, reason: str) -> None:
        """Dead-letter what may not stay in *queue*. Alternate exchanges serve here too; publishers' limits do not."""
        name, arguments = queue.declared.name, queue.declared.arguments
        exchange = arguments.get("x-dead-letter-exchange")
        if exchange is None:
            self.dropped[name, f"{reason}, no dead-letter exchange"] += 1
            return
        message = buried(stored.message, name, reason, stored.exchange, stored.key, self.timers.now_ms())
        key = arguments.get("x-dead-letter-routing-key", stored.key)
        deaths = deaths_of(message)
        targets = [target for target in self._router.queues(exchange, key) if not is_cycle(deaths, target)]
        for target in targets:
            self.queues[target].put(Stored(message, exchange, key))
        if not targets:
            self._keep_or_drop(queue, stored, reason)

    def _keep_or_drop(self, queue: MemoryQueue, stored: Stored, reason: str) -> None:
        if queue.declared.arguments.get("x-dead-letter-strategy") == "at-least-once":
            queue.held.append(stored)
        else:
            self.dropped[queue.declared.name, f"{reason}, dead letter not routed"] += 1

    def _exchange(self, wanted: Exchange) -> Exchange:
        return self.exchanges.setdefault(wanted.name, wanted)

    def _declared(self, wanted: Queue) -> Queue:
        if wanted.name not in self.queues:
            self.queues[wanted.name] = MemoryQueue(wanted, self.timers, self.activity, self._bury)
        return self.queues[wanted.name].declared

    def _check_ends(self, binding: Binding) -> None:
        if binding.source not in self.exchanges:
            raise TopologyMismatch(f"no exchange '{binding.source}' to bind '{binding.destination}' to")
        if binding.destination not in (self.exchanges if binding.to_exchange else self.queues):
            kind = "exchange" if binding.to_exchange else "queue"
            raise TopologyMismatch(f"no {kind} '{binding.destination}' to bind to '{binding.source}'")

    def _unbind(self, gone: Callable[[Binding], bool]) -> None:
        self._bindings = {binding: None for binding in self._bindings if not gone(binding)}
        self._reroute()

    def _reroute(self) -> None:
        queues = tuple(queue.declared for queue in self.queues.values())
        self._router = Router(Topology(tuple(self.exchanges.values()), queues, tuple(self._bindings)))


#: Their length does not matter in memory: nobody leads the schedulers, and no test has entries for a full audit.
_OF_ANY_LENGTH = (SCHEDULER_VIEW, AUDIT)


def _refuse_unknown(topology: Topology) -> None:
    """Raise ``ConfigError`` for every exchange type and argument that this broker would have to ignore."""
    problems = [
        f"exchange '{exchange.name}': the memory broker knows no exchanges of type {exchange.type}"
        for exchange in topology.exchanges
        if exchange.type not in EXCHANGE_TYPES
    ]
    for parts, known in ((topology.exchanges, EXCHANGE_ARGUMENTS), (topology.queues, QUEUE_ARGUMENTS)):
        for part in parts:
            free = {"x-max-length"} if part.name in _OF_ANY_LENGTH else set()
            unknown = sorted(set(part.arguments) - known - free)
            problems += [f"'{part.name}': the memory broker does not know {argument}" for argument in unknown]
    if problems:
        raise ConfigError(*problems)


def _differs(what: str, wanted: Exchange | Queue, live: Exchange | Queue) -> str:
    """What *live* has otherwise than *wanted*, or nothing."""
    asked, has = _settings(wanted), _settings(live)
    other = [name for name in sorted({*asked, *has}) if asked.get(name) != has.get(name)]
    words = [f"{name} is {has.get(name)!r} on the broker, wanted is {asked.get(name)!r}" for name in other]
    return f"{what} {wanted.name}: {', '.join(words)}" if words else ""


def _settings(part: Exchange | Queue) -> dict[str, Any]:
    kind = {"type": part.type, "internal": part.internal} if isinstance(part, Exchange) else {}
    return {**kind, **part.arguments}
