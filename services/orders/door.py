"""Jobs through the HTTP door (the intake), for where the broker itself is out of reach."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self  # a chunk holds jobs of several kinds; answers are any JSON

import httpx2
import orjson

from penstock import AccessRefused, ConnectionLost, NewJob, PenstockError, PublishError, Receipt
from penstock.printable import printable, shortened

#: Seconds for one answer, and between two tries where the door does not say how long to wait.
_TIMEOUT = 30.0
_PAUSE = 0.5
_TOLD = 200

#: Try again: too many requests, and the broker is away.
_LATER = frozenset({429, 503})


class Door:
    """A ``Taker`` that posts batches to the door at *url*, with a bearer *token* where it asks for one.

    A job's id is its idempotency key there, so that a batch may be sent again; the door gives it another id, which is
    in its receipt. *patience*: how long a door that is away or too busy is asked again; *say* hears of that. Use it as
    a context manager, on one thread.
    """

    def __init__(self, url: str, token: str | None, patience: timedelta, say: Callable[[str], None]) -> None:
        allowed = {} if token is None else {"Authorization": f"Bearer {token}"}
        headers = {"Content-Type": "application/json", **allowed}
        self._url = url.rstrip("/")
        self._http = httpx2.Client(headers=headers, timeout=_TIMEOUT, trust_env=False)
        self._patience = patience.total_seconds()
        self._say = say

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def take(self, jobs: Sequence[NewJob[Any]]) -> Sequence[Receipt | PenstockError]:
        """See ``Taker.take``. Raises ``ConnectionLost``, ``AccessRefused``."""
        answers: list[Receipt | PenstockError | None] = [None] * len(jobs)
        until = time.monotonic() + self._patience
        while open_ := [place for place, answer in enumerate(answers) if answer is None]:
            left = until - time.monotonic()
            told, wait = self._post([jobs[place] for place in open_], left)
            for place, one in zip(open_, told, strict=True):
                if left <= 0 or one["status"] not in _LATER:
                    answers[place] = _answer(jobs[place], one)
            time.sleep(wait)
        return [answer for answer in answers if answer is not None]

    def _post(self, jobs: Sequence[NewJob[Any]], left: float) -> tuple[Sequence[Mapping[str, Any]], float]:
        """What the door says of each of *jobs*, and how long to wait before the next question; *left*: at most."""
        try:
            answer = self._http.post(f"{self._url}/v1/jobs", content=orjson.dumps({"jobs": [*map(_item, jobs)]}))
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return self._later(jobs, f"no answer ({error})", _PAUSE, left)
        if answer.status_code in _LATER:
            return self._later(jobs, _words(answer), _asked(answer), left)
        if answer.status_code in (401, 403):
            raise AccessRefused(f"the door at {self._url} refuses: {_words(answer)}")
        if answer.status_code not in (202, 207):
            raise ConnectionLost(f"the door at {self._url} does not take jobs: {_words(answer)}")
        results = _results(answer)
        if len(results) != len(jobs):
            raise ConnectionLost(f"the door at {self._url} is no intake: it answers {_words(answer)}")
        return results, _PAUSE if any(one["status"] in _LATER for one in results) else 0.0

    def _later(
        self, jobs: Sequence[NewJob[Any]], why: str, wait: float, left: float
    ) -> tuple[Sequence[Mapping[str, Any]], float]:
        if left <= 0:
            raise ConnectionLost(f"the door at {self._url} cannot be used: {why}")
        wait = min(wait, left)
        self._say(f"the door at {self._url} cannot be used: {why}; next try in {wait:.1f} s")
        return [{"status": 503}] * len(jobs), wait


def _item(job: NewJob[Any]) -> dict[str, Any]:
    args = orjson.Fragment(job.kind.encode(job.args))
    return {"kind": job.kind.name, "args": args, "correlation_id": job.correlation_id, "idempotency_key": job.id}


def _results(answer: httpx2.Response) -> Sequence[Mapping[str, Any]]:
    """What is said of each job; nothing where that is not what an intake says."""
    try:
        found = answer.json()["results"]
        return found if all("status" in one for one in found) else []
    except (ValueError, TypeError, KeyError):
        return []


def _asked(answer: httpx2.Response) -> float:
    """How many seconds the door asks for. A date, as what stands before it may say, is as good as nothing."""
    asked = answer.headers.get("retry-after", "")
    return float(asked) if asked.isascii() and asked.isdigit() else _PAUSE


def _answer(job: NewJob[Any], told: Mapping[str, Any]) -> Receipt | PenstockError:
    if told["status"] == 202:
        return Receipt(told["id"], job.kind.name)
    return PublishError(f"{told['status']} {shortened(printable(str(told.get('detail', ''))), _TOLD)}")


def _words(answer: httpx2.Response) -> str:
    return f"{answer.status_code} {shortened(printable(answer.text), _TOLD)}"
