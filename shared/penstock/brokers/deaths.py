"""What RabbitMQ writes into a message that it dead-letters, and when it calls that a cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any  # header values are whatever AMQP carried

from penstock.message import Message

REJECTED = "rejected"
EXPIRED = "expired"
DELIVERY_LIMIT = "delivery_limit"

Death = Mapping[str, Any]


def deaths_of(message: Message) -> Sequence[Death]:
    """The deaths of *message*, the latest first; what is not an entry as the broker writes it is left out."""
    entries = message.headers.get("x-death")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def buried(message: Message, queue: str, reason: str, exchange: str, key: str, now_ms: int) -> Message:
    """Return *message* with its death in *queue*, where it had come by *exchange* and *key*, on top of ``x-death``."""
    earlier = list(deaths_of(message))
    again = next((death for death in earlier if (death.get("queue"), death.get("reason")) == (queue, reason)), None)
    if again is None:
        latest: Death = {
            "count": 1,
            "reason": reason,
            "queue": queue,
            "time": datetime.fromtimestamp(now_ms // 1000, UTC),
            "exchange": exchange,
            "routing-keys": [key],
        }
    else:
        earlier.remove(again)
        latest = {**again, "count": again["count"] + 1}
    first = {"x-first-death-exchange": exchange, "x-first-death-queue": queue, "x-first-death-reason": reason}
    return replace(message, headers={**first, **message.headers, "x-death": [latest, *earlier]})


def is_cycle(deaths: Sequence[Death], queue: str) -> bool:
    """Say whether a message with *deaths* came back to *queue* without a rejection on the way: the broker takes it no
    further (https://www.rabbitmq.com/docs/dlx).
    """
    for death in deaths:
        if death.get("reason") == REJECTED:
            return False
        if death.get("queue") == queue:
            return True
    return False
