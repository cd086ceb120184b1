"""Lanes of schedules in a SQLite file: read, decided and written inside the transaction that is open."""

from __future__ import annotations

import sqlite3

from penstock.claims import State
from penstock.overlaps import Admission, Decision, Entry, Lane, Standing, decide

_LANE = "SELECT holder, until, waiting, waits_until FROM penstock_overlap WHERE consumer = ? AND schedule = ?"
_KEEP = """INSERT INTO penstock_overlap (consumer, schedule, holder, until, waiting, waits_until)
    VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET holder = excluded.holder, until = excluded.until,
        waiting = excluded.waiting, waits_until = excluded.waits_until"""
_STANDINGS = "SELECT job_id, state, token, until FROM penstock_records WHERE consumer = ? AND job_id IN (?, ?, ?)"
_SKIP = "UPDATE penstock_records SET state = 'skipped' WHERE consumer = ? AND job_id = ?"
_LET_GO = "UPDATE penstock_records SET until = 0 WHERE consumer = ? AND job_id = ?"
_FENCE = "UPDATE penstock_records SET until = 0, token = ? WHERE consumer = ? AND job_id = ?"
_EXPIRE = """DELETE FROM penstock_overlap WHERE (consumer, schedule) IN (SELECT consumer, schedule
    FROM penstock_overlap AS lane WHERE until < ? AND waits_until < ? AND NOT EXISTS (SELECT 1
        FROM penstock_records AS r WHERE r.consumer = lane.consumer AND r.job_id = lane.holder) LIMIT ?)"""


def enter(connection: sqlite3.Connection, entry: Entry, now: int) -> Admission:
    """See ``Store.enter``. *now*: milliseconds since 1970 UTC."""
    claim = entry.claim
    row = connection.execute(_LANE, (claim.consumer, entry.schedule)).fetchone()
    lane = Lane() if row is None else Lane(*row)
    asked = (claim.consumer, claim.job_id, lane.holder, lane.waiting)
    standings = {job: Standing(State(state), *rest) for job, state, *rest in connection.execute(_STANDINGS, asked)}
    decision = decide(lane, standings, entry, now)
    _keep(connection, entry, decision)
    return decision.admission


def expire(connection: sqlite3.Connection, before: int, limit: int) -> None:
    """Forget up to *limit* lanes; see ``Store.expire``."""
    connection.execute(_EXPIRE, (before, before, limit))


def _keep(connection: sqlite3.Connection, entry: Entry, decision: Decision) -> None:
    lane, claim = decision.lane, entry.claim
    if decision.admission is not Admission.LOST:
        place = (claim.consumer, entry.schedule, lane.holder, lane.until, lane.waiting, lane.waits_until)
        connection.execute(_KEEP, place)
    if decision.fenced is not None:
        connection.execute(_FENCE, (claim.token, claim.consumer, decision.fenced))
    if decision.admission is Admission.SKIP:
        connection.execute(_SKIP, claim.key)
    elif decision.admission is Admission.WAIT:
        connection.execute(_LET_GO, claim.key)
