"""Jobs through the intake, and what became of each: mails in the catcher's log, credits in the ledger."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from datetime import datetime
from types import TracebackType
from typing import Self

import httpx2

from tests.containers.stack import Stack

#: How long one job may take to be accepted, tries of a busy door included.
_PATIENCE = 60.0


class Load:
    """Submits mails and credits in turn, *rate* a second, from its start to its end; *taken* is when each was taken."""

    def __init__(self, port: int, token: str, rate: float) -> None:
        self.taken: dict[str, float] = {}
        self.failed: Exception | None = None
        self._client = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {token}"}, timeout=15
        )
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(_PATIENCE * 2)
        self._client.close()

    def _run(self) -> None:
        try:
            number = 0
            while not self._stop.wait(1 / self._rate):
                number += 1
                self._submit(number)
        except Exception as error:  # noqa: BLE001 - told to the test by its account
            self.failed = error

    def _submit(self, number: int) -> None:
        kind, body = (
            ("email.send", {"to": f"user{number}@example.org", "template": "welcome", "values": {"name": "Ada"}})
            if number % 2
            else ("credit.add", {"user": number % 50 + 1, "amount": 1})
        )
        key, until = uuid.uuid4().hex, time.monotonic() + _PATIENCE
        while True:
            answer = self._client.post(f"/v1/jobs/{kind}", json=body, headers={"Idempotency-Key": key})
            if answer.status_code == 202:
                self.taken[answer.json()["id"]] = time.time()
                return
            assert answer.status_code in (429, 503), answer.text
            assert time.monotonic() < until, answer.text
            time.sleep(0.2)


class Account:
    """What became of the jobs of *stack*, by id: the instants at which their effects were seen."""

    def __init__(self, stack: Stack) -> None:
        self.mails: dict[str, list[float]] = {}
        for container in stack.containers("mail"):
            for at, entry in stack.log(container):
                self.mails.setdefault(entry["id"], []).append(_instant(at))
        rows = stack.rows("SELECT job_id, extract(epoch FROM booked) FROM credit_entries")
        self.credits = {job_id: float(booked) for job_id, booked in rows}
        self.credits_doubled = [job_id for job_id, times in Counter(job_id for job_id, _ in rows).items() if times > 1]

    def lost(self, taken: dict[str, float]) -> set[str]:
        """Which of the jobs that were taken had no effect yet."""
        return taken.keys() - self.mails.keys() - self.credits.keys()

    def mails_doubled(self) -> list[str]:
        """Which mails were sent more than once."""
        return [job_id for job_id, instants in self.mails.items() if len(instants) > 1]

    def longest_wait(self, taken: dict[str, float]) -> float:
        """Seconds from the 202 to the effect, of the job that waited longest."""
        done = self.credits | {job_id: instants[0] for job_id, instants in self.mails.items()}
        return max(done[job_id] - at for job_id, at in taken.items())


def _instant(text: str) -> float:
    """Docker writes nanoseconds, of which Python takes six digits."""
    return datetime.fromisoformat(f"{text[:26]}+00:00").timestamp()
