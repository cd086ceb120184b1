"""A dead letter as people read it, and the filter that picks some: values only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any  # header values are whatever AMQP carried

from penstock import headers as h
from penstock.copies import kind_of, origin_of
from penstock.errors import DecodeError
from penstock.fingerprints import Fingerprint
from penstock.job import is_kind, json_object
from penstock.message import Delivery, Message
from penstock.outcome import DeadReason
from penstock.topology.matching import matches
from penstock.topology.names import UNROUTED

#: The reason of a message that no queue took when it was due; it never died, it never arrived.
NOT_ROUTED = "unrouted"

_GIVEN_UP = "the broker gave it up: its worker died, or lost the connection, each time it was delivered"
_ESCAPED = re.compile(r"\\u([0-9a-fA-F]{4})")
_EXPIRED = "expired"  # a level of the cascade, on the way; not why a letter is here


@dataclass(frozen=True, slots=True, eq=False)
class DeadLetter:
    """One dead letter. *message* is what a replay sends on, with a broker-made letter's story put in.

    Instants are milliseconds since 1970 UTC; None and empty texts mean that the letter does not say.
    """

    queue: str
    message: Message
    id: str
    kind: str
    reason: str
    error_type: str
    error: str
    traceback: str
    died: int | None
    published: int | None
    attempt: int
    copy: int
    worker: str
    history: tuple[str, ...]
    #: How often it was replayed before.
    replays: int
    #: Whether a store remembers the job: its effect happens once, as long as it does.
    once: bool

    @classmethod
    def of(cls, delivery: Delivery) -> DeadLetter:
        """Read a delivery from a dead-letter queue. Never raises: whatever the letter does not say is left empty."""
        message = restored(delivery)
        headers = message.headers
        history = headers.get(h.HISTORY)
        return cls(
            queue=delivery.queue,
            message=message,
            id=message.message_id or "",
            kind=message.type or kind_of(replace(delivery, message=message)),
            reason=h.text_of(headers, h.REASON),
            error_type=h.text_of(headers, h.ERROR_TYPE),
            error=h.text_of(headers, h.ERROR),
            traceback=h.text_of(headers, h.TRACEBACK),
            died=h.ms_of(headers, h.DIED),
            published=_published(message),
            attempt=h.attempt_of(headers),
            copy=h.copy_of(headers),
            worker=h.text_of(headers, h.WORKER),
            history=tuple(line for line in history if isinstance(line, str)) if isinstance(history, list) else (),
            replays=h.replays_of(headers),
            once=headers.get(h.ONCE) is True,
        )

    def forgotten(self, retention: timedelta, now_ms: int) -> bool:
        """Whether the store may have forgotten the job, so that a replay could repeat its effect."""
        return self.once and (self.died is None or _is_older(self.died, now_ms, retention))

    @property
    def fingerprint(self) -> Fingerprint:
        """What it died of, without the particulars. Worked out each time."""
        return Fingerprint.of(self.reason, self.error_type, self.error, self.traceback)

    @property
    def not_a_job(self) -> str:
        """Why it cannot be anybody's job as it stands, in words; empty when it can."""
        if not is_kind(self.kind):
            return "it has no kind"
        try:
            json_object(self.message.body)
        except DecodeError as error:
            return str(error)
        return ""

    @property
    def work_queue(self) -> str:
        """The queue the job died in, by the letter's own queue, for headers may be forged; empty when unrouted."""
        return "" if self.queue == UNROUTED else self.queue.removesuffix(".dead")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which dead letters are meant; what is None does not matter.

    *kind*: a pattern such as ``email.*``. *error_type*: the error's class, with or without its module.
    *older_than*, *newer_than*: dead for at least, at most that long; a letter that does not say when it died is not
    taken. *attempt*: the attempt it died in. *text*: in its error or its arguments, upper and lower case alike.
    *group*: the id of its fingerprint. *copy*: its copy number, which tells the letters of one job apart.
    """

    kind: str | None = None
    reason: str | None = None
    error_type: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    attempt: int | None = None
    text: str | None = None
    group: str | None = None
    copy: int | None = None
    ids: frozenset[str] | None = None

    @property
    def everything(self) -> bool:
        """Whether every letter is meant."""
        return self == Filter()

    def takes(self, letter: DeadLetter, now_ms: int) -> bool:
        """Whether *letter* is meant."""
        return (
            (self.ids is None or letter.id in self.ids)
            and (self.kind is None or matches(self.kind, letter.kind))
            and (self.reason is None or letter.reason == self.reason)
            and (self.error_type is None or _is_type(letter.error_type, self.error_type))
            and (self.copy is None or letter.copy == self.copy)
            and (self.attempt is None or letter.attempt == self.attempt)
            and (self.older_than is None or _is_older(letter.died, now_ms, self.older_than))
            and (self.newer_than is None or _is_newer(letter.died, now_ms, self.newer_than))
            and (self.text is None or _says(letter, self.text.casefold()))
            and (self.group is None or letter.fingerprint.id == self.group)
        )

    def described(self) -> dict[str, Any]:
        """What is asked for, as JSON values: durations in seconds, ids sorted."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _described(value) for name, value in given.items() if value is not None}


def _described(value: object) -> object:
    match value:
        case timedelta():
            return value.total_seconds()
        case frozenset():
            return sorted(value)
        case _:
            return value


def _says(letter: DeadLetter, wanted: str) -> bool:
    if wanted in letter.error.casefold() or wanted in letter.error_type.casefold():
        return True
    body = letter.message.body
    if wanted in body.decode("utf-8", "replace").casefold():
        return True
    # JSON may spell a character as an escape; who searches does not.
    return b"\\u" in body and wanted in _ESCAPED.sub(_character, body.decode("utf-8", "replace")).casefold()


def restored(delivery: Delivery) -> Message:
    """The letter with its story in our headers, be it a worker's (as it is) or the broker's own (from ``x-death``).

    A worker's letter was published by a client and so has no ``x-death``; where there is one, the broker dead-lettered
    the message itself, and says there from which queue, why, when, and with which keys it once came.
    """
    message = delivery.message
    deaths = _deaths(message.headers)
    if not deaths:
        return message
    told = replace(message, headers=dict(message.headers))
    exchange, key = origin_of(replace(delivery, exchange=_text(deaths[-1], "exchange"), key=_first_key(deaths[-1])))
    told.headers.setdefault(h.ORIGIN, f"{exchange} {key}")
    if told.type is None and is_kind(key):
        told.type = key
    for name in h.STORY:
        told.headers.pop(name, None)
    told.headers |= _story(deaths, delivery.queue)
    return told


def _story(deaths: list[Mapping[str, Any]], queue: str) -> dict[str, Any]:
    """What our headers would have said, from the latest death that was not a level of the cascade."""
    death = next((entry for entry in deaths if entry.get("reason") != _EXPIRED), deaths[0])
    reason = NOT_ROUTED if queue == UNROUTED else _text(death, "reason").replace("_", "-")
    story: dict[str, Any] = {h.QUEUE: _text(death, "queue"), h.REASON: reason}
    if reason == DeadReason.DELIVERY_LIMIT:
        story[h.ERROR] = _GIVEN_UP
    when = death.get("time")
    if isinstance(when, datetime):
        story[h.DIED] = int(when.replace(tzinfo=when.tzinfo or UTC).timestamp() * 1000)
    return story


def _deaths(headers: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The entries of ``x-death``, the latest first. https://www.rabbitmq.com/docs/dlx#effects"""
    found = headers.get("x-death")
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, list) else []


def _first_key(death: Mapping[str, Any]) -> str:
    keys = death.get("routing-keys")
    return keys[0] if isinstance(keys, list) and keys and isinstance(keys[0], str) else ""


def _text(death: Mapping[str, Any], name: str) -> str:
    value = death.get(name)
    return value if isinstance(value, str) else ""


def _published(message: Message) -> int | None:
    stamp = h.ms_of(message.headers, h.PUBLISHED)
    return message.timestamp * 1000 if stamp is None and message.timestamp else stamp


def _is_type(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def _is_older(died: int | None, now_ms: int, span: timedelta) -> bool:
    return died is not None and now_ms - died >= span.total_seconds() * 1000


def _is_newer(died: int | None, now_ms: int, span: timedelta) -> bool:
    return died is not None and now_ms - died <= span.total_seconds() * 1000


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16))
