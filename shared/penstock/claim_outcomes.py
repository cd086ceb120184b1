"""What becomes of deliveries by what their store says, and what it keeps of a result. Values in, values out."""

from __future__ import annotations

from datetime import timedelta
from typing import Any  # jobs of every argument type pass through here

from pydantic_core import to_json

from penstock.claims import MAX_RESULT, Answer, Fenced, Verdict
from penstock.errors import StoreUnavailable
from penstock.job import Job
from penstock.outcome import Dead, DeadReason, Duplicate, Failure, Outcome, Skipped, Snoozed

#: How long a job is put off while its store is away.
AWAY = timedelta(seconds=2)
#: How long a job is put off while another run of it may still end: a twin of a young job mostly ends at once.
_SHORTEST_WAIT, _LONGEST_WAIT = timedelta(seconds=1), timedelta(seconds=5)


def refusal(answer: Answer, job: Job[Any], now_ms: int) -> Outcome:
    """What becomes of a delivery whose claim was answered so, and not ``FRESH``."""
    match answer.verdict:
        case Verdict.DONE:
            return Duplicate("done")
        case Verdict.SKIPPED:
            return Skipped("skipped before")
        case Verdict.RUNNING:
            left = timedelta(milliseconds=max(0, answer.until - now_ms))
            wait = max(min(left, wait_of(job, now_ms)), _SHORTEST_WAIT)
            return Snoozed(wait, "another run of it has not ended", same_copy=True)
        case Verdict.CONFLICT:
            text = f"job {job.id} was published before with other arguments: an id names one job, give this one its own"
            return Dead(DeadReason.CONFLICT, Failure("penstock.Conflict", text))
        case _:
            return Duplicate(f"superseded ({answer.verdict})")


def wait_of(job: Job[Any], now_ms: int) -> timedelta:
    """How long *job* waits for somebody else's end before it looks again: what began just now mostly ends soon."""
    age = timedelta(milliseconds=max(0, now_ms - (job.published or now_ms)))
    return max(min(age, _LONGEST_WAIT), _SHORTEST_WAIT)


def failed(error: Fenced | StoreUnavailable) -> Snoozed:
    """What becomes of a delivery whose run could not be ended with its store. Costs no attempt."""
    if isinstance(error, Fenced):
        return Snoozed(timedelta(seconds=1), str(error), same_copy=True)
    return Snoozed(AWAY, str(error))


def result_of(value: object) -> bytes | None:
    """A handler's result as the store keeps it: JSON, or a word for what cannot be kept. Never raises."""
    if value is None:
        return None
    try:
        data = to_json(value, fallback=repr, inf_nan_mode="null")
    except Exception:  # noqa: BLE001 - writing it runs foreign code, and the effect must not fail for it
        return to_json(f"<{type(value).__name__} that cannot be written as JSON>")
    return data if len(data) <= MAX_RESULT else to_json(f"<a result of {len(data)} bytes, over {MAX_RESULT}>")
