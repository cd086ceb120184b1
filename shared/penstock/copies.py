"""The messages that replace a delivery: retries, snoozes, dead letters and replays, with clean headers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any  # header values are whatever AMQP carried

from penstock import headers as h
from penstock.delay import MAX_DELAY, queue_key, target_of, whole_seconds
from penstock.job import is_kind
from penstock.message import JSON, Delivery, Message
from penstock.outcome import Dead, Failure
from penstock.topology.names import DEAD, DELAY

MAX_HISTORY = 20
MAX_HEADERS = 32 * 1024

_FIRST_TO_GO = frozenset({h.TRACEBACK, h.HISTORY})
_MAX_NAME = 255

#: Left free for what the driver adds: the length of the table and the publish sequence.
_DRIVERS = 64

#: AMQP 0-9-1 sender-selected distribution: kept, a copy would reach queues its own exchange never routes to.
_SENDER_SELECTED = frozenset({"CC", "BCC"})


@dataclass(frozen=True, slots=True)
class Copy:
    """A message to publish in place of a delivery, and where to."""

    message: Message
    exchange: str
    key: str


def kind_of(delivery: Delivery) -> str:
    """The kind of a delivery: its ``type``, else the key it was first published with."""
    return delivery.message.type or origin_of(delivery)[1]


def origin_of(delivery: Delivery) -> tuple[str, str]:
    """The exchange and routing key by which the job was first published."""
    exchange, found, key = h.text_of(delivery.message.headers, h.ORIGIN).partition(" ")
    if found and len(exchange) <= _MAX_NAME and len(key) <= _MAX_NAME:
        return exchange, key
    target = target_of(delivery.key)
    return delivery.exchange, delivery.key if target is None else target.name


def published_ms(message: Message, now_ms: int) -> int:
    """When the job was first published, as far as the message tells; never after *now_ms*."""
    stamp = h.ms_of(message.headers, h.PUBLISHED)
    if stamp is None and message.timestamp is not None and message.timestamp >= 0:
        stamp = message.timestamp * 1000
    return now_ms if stamp is None else min(stamp, now_ms)


def retry(delivery: Delivery, delay: timedelta, failure: Failure, now_ms: int, worker: str) -> Copy:
    """The next attempt, back to the queue the job failed in, after *delay*."""
    attempt = h.attempt_of(delivery.message.headers)
    message = _copy(delivery, now_ms)
    message.headers[h.ATTEMPT] = attempt + 1
    _remember(message, now_ms, f"attempt {attempt} retried after {_words(failure)} on {worker}")
    return Copy(_fitted(message), DELAY, _later(delay, delivery.queue))


def snooze(delivery: Delivery, delay: timedelta, now_ms: int, *, same_copy: bool = False) -> Copy:
    """The same attempt, later or (0) at once; *same_copy* keeps the copy number (a wait for a running twin)."""
    message = _copy(delivery, now_ms)
    if same_copy:
        message.headers[h.COPY] = h.copy_of(delivery.message.headers)
    key = _later(delay, delivery.queue) if delay else queue_key(0, delivery.queue)
    return Copy(_fitted(message), DELAY, key)


def dead_letter(delivery: Delivery, dead: Dead, now_ms: int, worker: str) -> Copy:
    """The dead letter of a job, with its story in the headers."""
    message = _copy(delivery, now_ms)
    attempt = h.attempt_of(message.headers)
    _remember(message, now_ms, f"attempt {attempt} dead ({dead.reason}) after {_words(dead.failure)} on {worker}")
    message.headers |= {
        h.QUEUE: delivery.queue,
        h.REASON: str(dead.reason),
        h.ERROR_TYPE: dead.failure.type,
        h.ERROR: dead.failure.text,
        h.TRACEBACK: dead.failure.traceback,
        h.DIED: now_ms,
        h.WORKER: worker,
    }
    if dead.claim is not None:
        message.headers[h.ONCE] = True
    return Copy(_fitted(message), DEAD, delivery.queue)


@dataclass(frozen=True, slots=True)
class Note:
    """What a person did to a dead letter, for its history: when (ms since 1970 UTC), and what and who in words."""

    now_ms: int
    what: str


def replay(message: Message, queue: str, note: Note | None = None, *, attempt: int = 1) -> Copy:
    """A dead letter's job, to run again from *attempt* in *queue*: same id, next copy, one more replay, no story."""
    fresh = _cleaned(message)
    for name in (*h.STORY, h.ATTEMPT, h.EXPIRES, h.DUE):
        fresh.headers.pop(name, None)
    if attempt > 1:
        fresh.headers[h.ATTEMPT] = attempt
    fresh.headers[h.REPLAYS] = h.replays_of(message.headers) + 1
    _number_and_note(fresh, message, note)
    return Copy(_fitted(fresh), DELAY, queue_key(0, queue))


def edited(message: Message, body: bytes, kind: str | None = None) -> Message:
    """A dead letter's message with another *body*, and another *kind* if one is given; what was replayed in vain is
    forgotten, for this is not the same any more."""
    headers = {name: value for name, value in message.headers.items() if name != h.REPLAYS}
    return replace(
        message, body=body, headers=headers, type=kind or message.type, content_type=JSON, content_encoding=None
    )


def letter(message: Message, key: str, note: Note | None = None) -> Copy:
    """A dead letter again, changed by hand: same id and story, next copy. *key* is the work queue, or the unrouted."""
    fresh = _cleaned(message)
    _number_and_note(fresh, message, note)
    return Copy(_fitted(fresh), DEAD, key)


def put_back(message: Message, key: str) -> Copy:
    """A dead letter as it was when it was exported, the copy number too; *key* as in ``letter``."""
    return Copy(_fitted(_cleaned(message)), DEAD, key)


def _number_and_note(fresh: Message, message: Message, note: Note | None) -> None:
    fresh.headers[h.COPY] = h.copy_of(message.headers) + 1
    if note is not None:
        _remember(fresh, note.now_ms, note.what)


def clean_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """*headers* without what a copy must not carry: the broker's ``x-*``, ``CC``, ``BCC`` and the publish sequence."""
    return {
        name: value
        for name, value in headers.items()
        if not name.startswith("x-") and name not in _SENDER_SELECTED and name != h.SEQ
    }


def _cleaned(message: Message) -> Message:
    return replace(message, headers=clean_headers(message.headers))


def _copy(delivery: Delivery, now_ms: int) -> Message:
    message = _cleaned(delivery.message)
    exchange, key = origin_of(delivery)
    message.headers[h.COPY] = h.copy_of(message.headers) + 1
    message.headers[h.PUBLISHED] = published_ms(delivery.message, now_ms)
    message.headers[h.ORIGIN] = f"{exchange} {key}"
    if message.type is None and is_kind(key):
        message.type = key
    return message


def _later(delay: timedelta, queue: str) -> str:
    # A handler may ask for anything; the cascade holds 1 s to 194 days.
    return queue_key(whole_seconds(min(max(delay, timedelta(seconds=1)), MAX_DELAY)), queue)


def _remember(message: Message, now_ms: int, what: str) -> None:
    past = message.headers.get(h.HISTORY)
    lines = [line[:300] for line in past if isinstance(line, str)] if isinstance(past, list) else []
    when = datetime.fromtimestamp(now_ms / 1000, UTC).isoformat(timespec="milliseconds")
    message.headers[h.HISTORY] = [*lines, f"{when} {what}"[:300]][-MAX_HISTORY:]


def _words(failure: Failure) -> str:
    return f"{failure.type}: {failure.text}" if failure.text else failure.type


def _fitted(message: Message) -> Message:
    """Keep the header table under its limit: a table over one frame closes the connection. Comfort goes first."""
    table = message.headers
    excess = _size(table) + _DRIVERS - MAX_HEADERS
    if excess > 0:
        for name in sorted(table, key=lambda name: (name in h.NEEDED, name not in _FIRST_TO_GO, -_size(table[name]))):
            excess -= 2 + len(name.encode()) + _size(table.pop(name))
            if excess <= 0:
                break
    return message


def _size(value: object) -> int:
    """The bytes *value* takes in a header table, never too low by more than rounding."""
    match value:
        case str():
            return 5 + len(value.encode("utf-8", "replace"))
        case bytes():
            return 5 + len(value)
        case dict():
            return 5 + sum(2 + len(name.encode()) + _size(item) for name, item in value.items())
        case list():
            return 5 + sum(_size(item) for item in value)
        case _:
            return 10
