"""Which queues of a topology a message reaches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache

from penstock.topology.matching import matches
from penstock.topology.model import Binding, Exchange, Topology

#: How many (exchange, key) pairs a router remembers.
REMEMBERED = 4096


class Router:
    """The routes of one topology. Answers are remembered: build a new router when the topology changes."""

    def __init__(self, topology: Topology) -> None:
        self._exchanges = {exchange.name: exchange for exchange in topology.exchanges}
        self._queues = frozenset(queue.name for queue in topology.queues)
        self._bindings: dict[str, list[Binding]] = defaultdict(list)
        for binding in topology.bindings:
            self._bindings[binding.source].append(binding)
        self._remembered = lru_cache(REMEMBERED)(self._find)

    def queues(self, exchange: str, key: str) -> tuple[str, ...]:
        """Name the queues that *key*, published to *exchange*, reaches: each once, none when it is unroutable.

        The empty *exchange* is the broker's default one, which reaches the queue named by *key*. An exchange that does
        not exist reaches nothing.
        """
        return self._remembered(exchange, key)

    def _find(self, exchange: str, key: str) -> tuple[str, ...]:
        if not exchange:
            return (key,) if key in self._queues else ()
        found: dict[str, None] = {}
        waiting, seen = [exchange], {exchange}
        while waiting:
            for name, is_exchange in self._next(waiting.pop(), key):
                if not is_exchange:
                    found[name] = None
                elif name not in seen:
                    seen.add(name)
                    waiting.append(name)
        return tuple(found)

    def _next(self, name: str, key: str) -> Iterator[tuple[str, bool]]:
        """One step from exchange *name*. Its alternate exchange serves when no binding fits, a dead end included."""
        exchange = self._exchanges.get(name)
        if exchange is None:
            return
        fitting = [binding for binding in self._bindings[name] if _fits(exchange, binding.key, key)]
        for binding in fitting:
            yield binding.destination, binding.to_exchange
        alternate = exchange.arguments.get("alternate-exchange")
        if alternate and not fitting:
            yield alternate, True


def _fits(exchange: Exchange, pattern: str, key: str) -> bool:
    match exchange.type:
        case "fanout":
            return True
        case "direct":
            return pattern == key
        case _:
            return matches(pattern, key)
