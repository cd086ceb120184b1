"""The demo's customer at the HTTP door: hands in jobs, also what the door ought to refuse, and asks how jobs ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any  # arguments are JSON

import httpx2
import orjson
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed

from penstock import ConnectionLost, NewJob

#: Jobs in one request, and seconds for its answer.
_AT_ONCE = 500
_TIMEOUT = 20.0
_PAUSE = 0.5

#: Too many requests, or no broker: ask again.
_LATER = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Door:
    """An intake at *url*. A question raises ``ConnectionLost`` when it is not answered for a while."""

    url: str
    http: httpx2.AsyncClient

    async def open(self) -> bool:
        """Whether it answers yet."""
        try:
            return (await self.http.get(f"{self.url}/v1/kinds")).is_success
        except httpx2.TransportError:
            return False

    async def submit(self, jobs: Sequence[NewJob[Any]]) -> list[str]:
        """Hand in *jobs*, each under its id as the key; the ids by which the door knows them, in order."""
        ids: list[str] = []
        for first in range(0, len(jobs), _AT_ONCE):
            answer = await self._submit(orjson.dumps({"jobs": [*map(_item, jobs[first : first + _AT_ONCE])]}))
            if answer.status_code != 202:
                raise ConnectionLost(f"the door does not take these jobs: {answer.status_code} {answer.text[:200]}")
            ids += [one["id"] for one in answer.json()["results"]]
        return ids

    async def knock(self, kind: str, body: bytes) -> int:
        """Hand in *body*, whatever it is, and say with which status the door answers."""
        return (await self._post(f"/v1/jobs/{kind}", body)).status_code

    async def state(self, job_id: str) -> str | None:
        """How a job stands by the store of its workers, but for the audit; None before its first run."""
        answer = await self._asked("GET", f"/v1/jobs/{job_id}")
        return str(answer.json()["state"]) if answer.is_success else None

    async def _submit(self, batch: bytes) -> httpx2.Response:
        """The door's last word on *batch*, which is handed in as long as it asks to come again."""
        answer = await self._post("/v1/jobs", batch)
        while answer.status_code in _LATER or _is_partly_later(answer):
            await asyncio.sleep(float(answer.headers.get("retry-after", _PAUSE)))
            answer = await self._post("/v1/jobs", batch)
        return answer

    async def _post(self, path: str, body: bytes) -> httpx2.Response:
        return await self._asked("POST", path, content=body, headers={"Content-Type": "application/json"})

    async def _asked(self, method: str, path: str, **more: Any) -> httpx2.Response:
        again = AsyncRetrying(
            retry=retry_if_exception_type(httpx2.TransportError),
            stop=stop_after_delay(_TIMEOUT),  # it may be killed, and is started again
            wait=wait_fixed(_PAUSE),
            reraise=True,
        )
        try:
            return await again(self.http.request, method, f"{self.url}{path}", **more)
        except httpx2.TransportError as error:
            raise ConnectionLost(f"the door at {self.url} does not answer: {error}") from error


@asynccontextmanager
async def at_door(url: str) -> AsyncIterator[Door]:
    """A customer at the door at *url* for the time of the block."""
    async with httpx2.AsyncClient(timeout=_TIMEOUT, trust_env=False) as http:
        yield Door(url, http)


def _is_partly_later(answer: httpx2.Response) -> bool:
    return answer.status_code == 207 and any(one["status"] in _LATER for one in answer.json()["results"])


def _item(job: NewJob[Any]) -> dict[str, Any]:
    args = orjson.Fragment(job.kind.encode(job.args))
    return {"kind": job.kind.name, "args": args, "correlation_id": job.correlation_id, "idempotency_key": job.id}
