"""What a relay decides: a row as a message, a batch sorted by the broker's answers, and which kinds rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any  # untyped arguments

from penstock import tracing
from penstock.errors import MessageError, PenstockError, TooLarge, Unencodable, Unroutable, UsageError
from penstock.job import JobKind, NewJob, json_object
from penstock.message import Message
from penstock.publishing import Outgoing, Packer
from penstock.relaying import Waiting

#: What is wrong with one job and says nothing about the next.
_OWN_FAULT = (Unroutable, TooLarge, Unencodable, MessageError, UsageError)

#: Seconds for which a kind is left alone that another relay has; the first and the longest wait for one that the broker
#: does not take.
_ELSEWHERE = 0.1
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0

_UNTYPED: JobKind[dict[str, Any]] = JobKind("untyped", dict)
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(slots=True)
class Sorted:
    """What became of a batch: rows that are *published*, jobs *parked* for a reason, and how many *left* with the
    *last* of the broker's reasons."""

    published: list[int] = field(default_factory=list)
    parked: list[tuple[Waiting, str]] = field(default_factory=list)
    left: int = 0
    last: str = ""


def sort(rows: Sequence[Waiting], answers: Iterable[PenstockError | None]) -> Sorted:
    """Sort *rows* by the *answer* to each, None where it was confirmed."""
    result = Sorted()
    for row, answer in zip(rows, answers, strict=True):
        if answer is None:
            result.published.append(row.row)
        elif isinstance(answer, _OWN_FAULT):
            result.parked.append((row, f"{type(answer).__name__}: {answer}"))
        else:
            result.left += 1
            result.last = str(answer)
    return result


def packed(row: Waiting, packer: Packer) -> Outgoing | PenstockError:
    """The message for *row*, or what keeps it from being one: others than ``outbox.add`` may have written it."""
    try:
        at, expires = _instant(row.due), _instant(row.expires)
        options = NewJob(_UNTYPED, {}, row.job_id, None, at, expires, row.correlation_id)
        outgoing = packer.pack_body(row.kind, row.body, options)
        trace = {} if row.headers is None else tracing.context_of(json_object(row.headers.encode()))
    except OverflowError:
        return UsageError("due or expires is no instant in milliseconds since 1970")
    except PenstockError as error:
        return error
    message = outgoing.message
    message.app_id = row.app_id
    message.headers |= trace
    outgoing.span = tracing.forwarding(message, outgoing.exchange, outgoing.key)
    return outgoing


def untraced(_: Message, __: str, ___: str) -> None:
    """Begins no span: the trace of a job from an outbox began where it was added."""


def _instant(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)


class Rests:
    """Which kinds are left alone for now. Times are the caller's, in seconds."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def resting(self, kind: str, now: float) -> bool:
        """Whether *kind* is not to be tried at *now*."""
        return self._until.get(kind, now) > now

    def failing(self, kind: str) -> bool:
        """Whether the broker took none of *kind* the last time."""
        return kind in self._failures

    def elsewhere(self, kind: str, now: float) -> None:
        """Another relay has *kind*."""
        self._until[kind] = now + _ELSEWHERE

    def failed(self, kind: str, now: float) -> float:
        """The broker took none of *kind*; returns how long it rests, each time in a row twice as long."""
        failures = self._failures[kind] = self._failures.get(kind, 0) + 1
        wait = min(_FIRST_WAIT * 2.0 ** min(failures - 1, 10), _LONGEST_WAIT)
        self._until[kind] = now + wait
        return wait

    def put_off(self, kind: str, now: float) -> float:
        """The broker took some of *kind*; returns how long it rests."""
        self._failures.pop(kind, None)
        self._until[kind] = now + _FIRST_WAIT
        return _FIRST_WAIT

    def worked(self, kind: str) -> None:
        """The broker took all of *kind*."""
        self._failures.pop(kind, None)
        self._until.pop(kind, None)
