"""Effects under way on PostgreSQL, whose records nobody sees before they are committed: found by their locks, ended."""

from __future__ import annotations

import asyncio
import time

from psycopg import errors

from penstock.claims import UnderWay
from penstock.errors import ConfigError, StoreUnavailable
from penstock.stores.postgres_connections import Session
from penstock.stores.postgres_statements import HELD, KEY, storable

#: Seconds for which a run may still end by itself, and within which one that was told to end has to.
GRACE, AT_LONGEST, _LOOK_EVERY = 0.1, 10.0, 0.02

#: A lock says which record it stands for only to who knows its job and its consumer.
_JOB = f"SELECT consumer, {KEY.replace('job_id', '%(job)s::text')} AS key FROM penstock_consumers"
_UNDER_WAY = f"""SELECT consumer, floor(extract(epoch FROM xact_start) * 1000)::bigint
    FROM ({_JOB}) AS job JOIN pg_locks AS l ON {HELD} LEFT JOIN pg_stat_activity AS activity ON activity.pid = l.pid
    ORDER BY consumer COLLATE "C" """

#: Takes the locks that are free, so that no further run begins; has those sessions end that hold the others.
_HOLD = f"""WITH held AS MATERIALIZED (
        SELECT consumer, key, pg_try_advisory_xact_lock(key) AS free FROM ({_JOB}) AS job)
    SELECT consumer, free, CASE WHEN %(end)s::boolean AND NOT free
        THEN (SELECT bool_or(pg_terminate_backend(l.pid)) FROM pg_locks AS l WHERE {HELD}) END
    FROM held"""
#: One after the other: they would end each other.
_ALONE = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 1885695604))"
_FORGET = "DELETE FROM penstock_records WHERE job_id = %s RETURNING consumer"


async def introduce(session: Session, consumer: str) -> None:
    """Let the runs of *consumer* be found. Idempotent. Raises psycopg's errors."""
    await session.execute("INSERT INTO penstock_consumers VALUES (%s) ON CONFLICT DO NOTHING", (consumer,))


async def under_way(session: Session, job_id: str) -> list[UnderWay]:
    """See ``OwnEffectStore.under_way``. Raises psycopg's errors."""
    rows = await (await session.execute(_UNDER_WAY, {"job": storable(job_id)})).fetchall()
    return [UnderWay(consumer, job_id, since) for consumer, since in rows]


async def forget(session: Session, job_id: str) -> int:
    """See ``Store.forget``. Raises psycopg's errors, too; then a transaction may be open."""
    # Each statement sees what was committed before it, whatever the connection's own level.
    await session.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    await session.execute(_ALONE, (storable(job_id),))
    ended = await _held(session, storable(job_id))
    forgotten = await (await session.execute(_FORGET, (storable(job_id),))).fetchall()
    await session.execute("COMMIT")
    return len(ended.union(consumer for (consumer,) in forgotten))


async def _held(session: Session, job_id: str) -> set[str]:
    """Let no run of *job_id* begin before the transaction ends; the consumers whose runs had to be ended for it."""
    ended = set[str]()
    began = time.monotonic()
    while (waited := time.monotonic() - began) < AT_LONGEST:
        try:
            rows = await (await session.execute(_HOLD, {"job": job_id, "end": waited > GRACE})).fetchall()
        except errors.InsufficientPrivilege as error:
            raise ConfigError("the job runs in a transaction of another database user: be that user") from error
        ended.update(consumer for consumer, _, told in rows if told)
        if all(free for _, free, _ in rows):
            return ended
        await asyncio.sleep(_LOOK_EVERY)
    raise StoreUnavailable(f"a run of the job was told to end, and has not within {AT_LONGEST:.0f} s")
