"""The audit's one handler, which serves every kind there is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any  # arguments of every kind

from penstock import Handlers, Job, JobKind, Transaction
from services.audit import records
from services.audit.records import Record


def recording(kinds: Iterable[JobKind[Any]]) -> Handlers:
    """Handlers that record each job of *kinds*, once."""
    handlers = Handlers()
    for kind in kinds:
        # As a plain object: arguments that break their kind's schema were published all the same.
        handlers.on(JobKind(kind.name, dict), once="effect")(record)
    return handlers


async def record(job: Job[dict[str, Any]], tx: Transaction) -> None:
    """Write down that *job* was published, by whom and when; of its arguments only what they weigh and their hash."""
    args = canonical(job.args)
    await records.add(
        tx,
        Record(
            job_id=_storable(job.id) or "",
            kind=job.kind,
            app_id=_storable(job.app_id),
            correlation_id=_storable(job.correlation_id),
            published=job.published,
            args_sha256=hashlib.sha256(args).hexdigest(),
            args_bytes=len(args),
        ),
    )


def canonical(args: dict[str, Any]) -> bytes:
    """*args* as JSON in the one form that is hashed, however it was written: keys sorted, no white space, UTF-8."""
    return json.dumps(args, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _storable(text: str | None) -> str | None:
    # PostgreSQL keeps no zero character, which AMQP carries.
    return None if text is None else text.replace("\0", "\N{REPLACEMENT CHARACTER}")
