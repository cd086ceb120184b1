"""Ticks of schedules as the scheduler publishes them, for tests of what a worker makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from penstock import JobKind
from penstock.claims import State
from penstock.connect import store_for
from tests.support.once_apps import query
from tests.support.working import foreign, put


@dataclass
class Digest:
    """What a tick does: it fails so many attempts first."""

    fail_attempts: int = 0


DIGEST = JobKind("email.digest", Digest)


async def tick(
    url: str, job: str, overlap: object = "skip", *, schedule: object = "digest", kind: str = DIGEST.name, **args: Any
) -> None:
    """Publish a tick as the scheduler does."""
    headers: dict[str, Any] = {"penstock-schedule": schedule, "penstock-overlap": overlap}
    async with foreign(url) as channel:
        await put(channel, kind, orjson.dumps(args), message_id=job, headers=headers)


async def migrated(url: str) -> str:
    """*url*, once there is a store."""
    store = store_for(url)
    await store.migrate()
    await store.close()
    return url


async def marked(store_url: str, job: str, state: State) -> bool:
    """Whether the store says that *job* stands so."""
    return (job, state) in await query(store_url, "SELECT job_id, state FROM penstock_records")
