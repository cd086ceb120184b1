"""Results: what became of a job whose effect happens once, as its store remembers it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self  # a result is any JSON

import orjson

from penstock.claims import Record, State, StoreUrl, UnderWay
from penstock.connect import store_for
from penstock.errors import StoreUnavailable
from penstock.storing import Store, standing

#: Seconds between two looks: soon at first, then seldom.
_FIRST_WAIT, _LONGEST_WAIT, _GROWTH = 0.02, 1.0, 1.5

#: What tells most comes first, where several queues have run a job and none is named.
_ORDER = (State.DONE, State.DEAD, State.SKIPPED, State.RUNNING, State.MOVED)


@dataclass(frozen=True, slots=True)
class Result:
    """Where a job stands at *consumer* (its queue): ``running``, ``moved`` (to be run again), ``done``, ``dead`` or
    ``skipped`` (a schedule's tick that came while another one ran).

    *value* is what the handler returned, as JSON; None until it is done, and where it returned nothing.
    """

    state: State
    value: Any
    consumer: str

    @property
    def ended(self) -> bool:
        """Whether nothing more will become of the job by itself."""
        return self.state in (State.DONE, State.DEAD, State.SKIPPED)


class Results:
    """Reads results from a store: ``async with Results(url) as results: await results.get(job_id)``.

    *where*: the store's URL (None: ``PENSTOCK_STORE_URL``), or a store that is open and stays so. Only handlers with
    ``once`` leave results, for as long as the store remembers the job. One event loop; safe to share by its tasks.
    Every method raises ``StoreUnavailable`` and ``ConfigError`` as the store does.
    """

    def __init__(self, where: str | StoreUrl | Store | None = None) -> None:
        self._own = where is None or isinstance(where, str | StoreUrl)
        self._store = store_for(where) if where is None or isinstance(where, str | StoreUrl) else where

    async def get(self, job_id: str, *, consumer: str | None = None) -> Result | None:
        """What is known of a job now; None when no run of it has begun, or it is forgotten.

        *consumer*: the queue meant, such as ``email``, for a job that several queues take. When it is None, one
        that has ended counts before one that has not.
        """
        found = await standing(self._store, job_id)
        meant = [record for record in found if consumer in (None, record.consumer)]
        best = min(meant, key=lambda record: _ORDER.index(record.state), default=None)
        return None if best is None else _result(best)

    async def wait(self, job_id: str, *, timeout: timedelta, consumer: str | None = None) -> Result:
        """Wait until the job is done, dead or skipped. A store that is away meanwhile is waited for as well.

        Raises ``TimeoutError`` when that takes longer than *timeout*.
        """
        deadline, wait = time.monotonic() + timeout.total_seconds(), _FIRST_WAIT
        while True:
            away, found = None, None
            try:
                found = await self.get(job_id, consumer=consumer)
            except StoreUnavailable as error:
                away = error
            if found is not None and found.ended:
                return found
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError(_not_ended(job_id, timeout, found)) from away
            await asyncio.sleep(min(wait, left))
            wait = min(wait * _GROWTH, _LONGEST_WAIT)

    async def __aenter__(self) -> Self:
        if self._own:
            await self._store.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._own:
            await self._store.close()


def get(job_id: str, where: str | StoreUrl | None = None, *, consumer: str | None = None) -> Result | None:
    """``Results.get`` for ordinary code, outside of event loops: opens the store at *where*, looks, and closes it."""

    async def look() -> Result | None:
        async with Results(where) as results:
            return await results.get(job_id, consumer=consumer)

    return asyncio.run(look())


def _result(record: Record | UnderWay) -> Result:
    return Result(record.state, None if record.result is None else orjson.loads(record.result), record.consumer)


def _not_ended(job_id: str, timeout: timedelta, found: Result | None) -> str:
    stands = "it is not known yet" if found is None else f"it is {found.state}"
    return f"job {job_id} has not ended within {timeout}: {stands}"
