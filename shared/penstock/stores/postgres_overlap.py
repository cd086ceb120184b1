"""Lanes of schedules on PostgreSQL: a lane's row is locked, then records, then all of it is decided and written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any  # rows hold whatever SQL carries

from penstock.claims import State
from penstock.overlaps import Admission, Decision, Entry, Lane, Standing, decide
from penstock.stores.postgres_connections import Session
from penstock.stores.postgres_statements import IN_ORDER, NOW, storable

#: The update that changes nothing locks the row, and hands it over as the last who had it left it.
_LOCK = f"""INSERT INTO penstock_overlap AS lane (consumer, schedule) VALUES (%(consumer)s, %(schedule)s)
    ON CONFLICT (schedule, consumer) DO UPDATE SET consumer = excluded.consumer
    RETURNING {NOW}, lane.holder, lane.until, lane.waiting, lane.waits_until"""
_STANDINGS = f"""SELECT job_id, state, token, until FROM penstock_records
    WHERE consumer = %(consumer)s AND job_id = ANY(%(jobs)s::text[]) ORDER BY {IN_ORDER} FOR NO KEY UPDATE"""
_KEEP = """UPDATE penstock_overlap
    SET holder = %(holder)s, until = %(until)s, waiting = %(waiting)s, waits_until = %(waits_until)s
    WHERE consumer = %(consumer)s AND schedule = %(schedule)s"""
_SKIP = "UPDATE penstock_records SET state = 'skipped' WHERE consumer = %(consumer)s AND job_id = %(job_id)s"
_LET_GO = "UPDATE penstock_records SET until = 0 WHERE consumer = %(consumer)s AND job_id = %(job_id)s"
_FENCE = """UPDATE penstock_records SET until = 0, token = %(token)s
    WHERE consumer = %(consumer)s AND job_id = %(fenced)s"""

#: A row that is locked is being entered this very moment: passed over.
EXPIRE = """WITH old AS (
        SELECT consumer, schedule FROM penstock_overlap AS lane
        WHERE until < %(before)s AND waits_until < %(before)s AND NOT EXISTS (SELECT 1 FROM penstock_records AS r
            WHERE r.consumer = lane.consumer AND r.job_id = lane.holder)
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    DELETE FROM penstock_overlap AS lane USING old
    WHERE lane.consumer = old.consumer AND lane.schedule = old.schedule"""


async def enter(session: Session, entry: Entry, now: int | None) -> Admission:
    """See ``Store.enter``. *now*: milliseconds since 1970 UTC; None: the server's clock. Raises psycopg's errors; then
    a transaction may be open."""
    job = storable(entry.claim.job_id)
    entry = replace(entry, claim=replace(entry.claim, job_id=job))
    place = {"consumer": entry.claim.consumer, "schedule": entry.schedule, "job_id": job, "now": now}
    await session.tell(b"BEGIN")
    [[instant, *found]] = await _rows(session, _LOCK, place)
    lane = Lane(*found)
    rows = await _rows(session, _STANDINGS, {**place, "jobs": [job, lane.holder, lane.waiting]})
    standings = {job_id: Standing(State(state), token, until) for job_id, state, token, until in rows}
    decision = decide(lane, standings, entry, instant)
    await _keep(session, place, entry, decision)
    await session.execute("COMMIT")
    return decision.admission


async def _keep(session: Session, place: dict[str, Any], entry: Entry, decision: Decision) -> None:
    lane = decision.lane
    values = {"holder": lane.holder, "until": lane.until, "waiting": lane.waiting, "waits_until": lane.waits_until}
    if decision.admission is not Admission.LOST:
        await session.execute(_KEEP, place | values, prepare=True)
    if decision.fenced is not None:
        await session.execute(_FENCE, place | {"token": entry.claim.token, "fenced": decision.fenced})
    if decision.admission is Admission.SKIP:
        await session.execute(_SKIP, place)
    elif decision.admission is Admission.WAIT:
        await session.execute(_LET_GO, place)


async def _rows(session: Session, statement: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
    return await (await session.execute(statement, values, prepare=True)).fetchall()
