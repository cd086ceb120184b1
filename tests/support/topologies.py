"""Short ways to spell small topologies in tests."""

from __future__ import annotations

from typing import Any

from penstock.topology.model import Binding, Exchange, Queue, Topology

QUORUM = {"x-queue-type": "quorum"}
#: What a dead letter needs to be handed on at least once.
SAFE = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}


def exchange(name: str, kind: str = "topic", *, internal: bool = False, alternate: str | None = None) -> Exchange:
    """A durable exchange."""
    return Exchange(name, kind, internal, {"alternate-exchange": alternate} if alternate else {})


def queue(
    name: str,
    *,
    limit: int | None = 20,
    ttl_ms: int | None = None,
    dead: str | None = None,
    dead_key: str | None = None,
    safe: bool = True,
) -> Queue:
    """A quorum queue. With *dead* (an exchange) it dead-letters, at least once unless not *safe*."""
    arguments: dict[str, Any] = {
        "x-delivery-limit": limit,
        "x-message-ttl": ttl_ms,
        "x-dead-letter-exchange": dead,
        "x-dead-letter-routing-key": dead_key,
    }
    given = {name: value for name, value in arguments.items() if value is not None}
    return Queue(name, {**QUORUM, **given, **(SAFE if dead is not None and safe else {})})


def topology(*parts: Exchange | Queue | Binding) -> Topology:
    """Sort *parts* into an order in which they can be declared."""
    return Topology(
        tuple(part for part in parts if isinstance(part, Exchange)),
        tuple(part for part in parts if isinstance(part, Queue)),
        tuple(part for part in parts if isinstance(part, Binding)),
    )
