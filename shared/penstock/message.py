"""A job on the wire: the AMQP properties Penstock uses, free of any driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any  # header values are whatever AMQP carried

#: Bodies above this are refused by publishers and dead-lettered by workers unless configured otherwise (bytes).
MAX_BODY = 1024 * 1024

JSON = "application/json"


@dataclass(slots=True)
class Message:
    """One message: body, the AMQP properties that mean something to Penstock, and the header table.

    Every message is published persistent (delivery mode 2). ``timestamp`` is AMQP's: whole seconds since 1970 UTC.
    ``user_id``, ``expiration`` and ``priority`` do not exist here on purpose: a copy must not carry them.
    """

    body: bytes
    headers: dict[str, Any] = field(default_factory=dict)
    message_id: str | None = None
    type: str | None = None
    content_type: str | None = JSON
    content_encoding: str | None = None
    timestamp: int | None = None
    app_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None


@dataclass(slots=True, eq=False)
class Delivery:
    """One hand-over of a message by the broker. Settle it through the subscription it came by, once."""

    message: Message
    queue: str
    exchange: str
    key: str
    tag: int
    redelivered: bool = False
    #: How often the broker says it handed this message over before (``x-delivery-count``); a hint only.
    deliveries: int = 0
    #: Whether its producer sent no job id, so that the one it has now is known to this process alone.
    anonymous: bool = False
    #: Whether a store remembers that its job was done: delivered again it would be a duplicate, so its ack may wait a
    #: little for others to go with.
    remembered: bool = False
