"""What can become of a delivery, and the pure decision what becomes of a failed one."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from penstock.claims import Claim
from penstock.errors import (
    DecodeError,
    JobCrashed,
    MessageError,
    Reject,
    Retry,
    SchemaError,
    Snooze,
    UnknownKind,
)
from penstock.retry import RetryPolicy

#: A handler's snooze that asks for less would come back before the broker has had time for anything else.
_SHORTEST = timedelta(seconds=1)

MAX_ERROR_TEXT = 1024
MAX_TRACEBACK = 8 * 1024


class DeadReason(StrEnum):
    """Why a job was dead-lettered; the word in ``penstock-reason``, in metrics and in filters."""

    DECODE = "decode"
    SCHEMA = "schema"
    UNKNOWN_KIND = "unknown-kind"
    UNBOUND_KIND = "unbound-kind"
    TOO_LARGE = "too-large"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    TOO_OLD = "too-old"
    CRASHED = "crashed"
    CONFLICT = "conflict"
    OVERLAP = "overlap"
    #: Written by the broker, not by a worker: the queue's delivery limit was passed.
    DELIVERY_LIMIT = "delivery-limit"

    @classmethod
    def of(cls, error: MessageError) -> DeadReason:
        """The reason for a message that cannot be run."""
        match error:
            case DecodeError():
                return cls.DECODE
            case SchemaError():
                return cls.SCHEMA
            case UnknownKind():
                return cls.UNKNOWN_KIND
            case _:
                return cls.REJECTED


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as text, cut to what a header may carry: what is left of it once it leaves the process."""

    type: str
    text: str
    traceback: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe *error*; never raises, whatever its ``__str__`` does."""
        return cls(_type_name(error), _clean(_text_of(error), MAX_ERROR_TEXT), _traceback_of(error))


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned *result*."""

    result: object = None


@dataclass(frozen=True, slots=True)
class Retried:
    """The attempt failed; another follows after *delay*. *claim*: what its store is told once the copy stands."""

    delay: timedelta
    failure: Failure
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Snoozed:
    """Later, after *delay*, at no cost. *same_copy*: what comes back is the same copy, not a further one."""

    delay: timedelta
    note: str = ""
    same_copy: bool = False
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Dead:
    """To the dead letters, with its story."""

    reason: DeadReason
    failure: Failure
    claim: Claim | None = None


@dataclass(frozen=True, slots=True)
class Expired:
    """Past its ``penstock-expires``: not run, acked and counted."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Called off before it ran: acked and counted."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Not run: its store remembers that the job was done, or went on as another copy (*why*). Acked and counted."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Never run: a schedule's tick that came while another one had not ended (*why*). Acked and counted."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Released:
    """Given back to the queue unfinished (shutdown)."""


Outcome = Done | Retried | Snoozed | Dead | Expired | Cancelled | Duplicate | Skipped | Released

#: Each outcome in one word, for logs and metrics.
WORDS: Mapping[type[Outcome], str] = {
    Done: "done",
    Retried: "retried",
    Snoozed: "snoozed",
    Dead: "dead",
    Expired: "expired",
    Cancelled: "cancelled",
    Duplicate: "duplicate",
    Skipped: "skipped",
    Released: "released",
}


def judge(error: BaseException, attempt: int, policy: RetryPolicy, *, age: timedelta, roll: float = 0.0) -> Outcome:
    """Say what becomes of a job whose handler raised *error* on its *attempt*-th run.

    *age* is the time since the job was first published; *roll* in [0, 1) the random part of the backoff's jitter.
    """
    match error:
        case Snooze(after=delay) if delay > policy.max_age - age:
            return Dead(DeadReason.TOO_OLD, Failure.of(error))
        case Snooze(after=delay):
            return Snoozed(max(delay, _SHORTEST), str(error))
        case Reject() | MessageError():
            return Dead(DeadReason.REJECTED, Failure.of(error))
        case _ if isinstance(error, policy.give_up_on):
            return Dead(DeadReason.REJECTED, Failure.of(error))
        case JobCrashed() if attempt >= policy.max_attempts:
            return Dead(DeadReason.CRASHED, Failure.of(error))
        case _ if attempt >= policy.max_attempts:
            return Dead(DeadReason.EXHAUSTED, Failure.of(error))
        case Retry(after=delay) if delay is not None:
            return Retried(delay, Failure.of(error))
        case _:
            return Retried(policy.delay_after(attempt, error, roll), Failure.of(error))


def _type_name(error: BaseException) -> str:
    cls = type(error)
    module = cls.__module__
    name = cls.__qualname__ if module in ("builtins", "__main__") else f"{module}.{cls.__qualname__}"
    return _clean(name, 200)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - a foreign __str__ may raise anything; the job still needs its story
        return f"<{type(error).__name__} whose text cannot be read: {type(broken).__name__}>"


def _traceback_of(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, limit=-15)
    except Exception as broken:  # noqa: BLE001 - formatting calls the same foreign code
        return f"<traceback cannot be formatted: {type(broken).__name__}>"
    text = "".join(line if len(line) <= MAX_ERROR_TEXT else line[:MAX_ERROR_TEXT] + "…\n" for line in lines)
    return _clean(text[-MAX_TRACEBACK:], MAX_TRACEBACK)


def _clean(text: str, limit: int) -> str:
    """Valid UTF-8 of at most *limit* bytes."""
    data = text[:limit].encode("utf-8", "replace")
    return (
        text[:limit]
        if len(data) <= limit and data == text[:limit].encode("utf-8", "surrogatepass")
        else data[:limit].decode("utf-8", "ignore")
    )
