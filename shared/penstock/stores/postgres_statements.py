"""What the library says to PostgreSQL about records, and how their values are written and read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any  # rows hold whatever SQL carries

import orjson
from psycopg import pq

from penstock.claims import Claim, Mark, Record, State

#: The instant by the caller's clock when it has one, else the server's own.
NOW = "coalesce(%(now)s::bigint, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)"

_COLUMNS = "r.consumer, r.job_id, r.copy, r.state, r.token, r.until, r.args_hash, r.result, r.claimed"

#: Rows are locked in one order by every statement that locks several, so that no two of them wait for each other.
IN_ORDER = 'consumer COLLATE "C", job_id COLLATE "C"'

#: What stands for a record that may not be there yet: an advisory lock (of the transaction) by its key.
KEY = "hashtextextended(job_id, hashtextextended(consumer, 1885695603))"
_FREE = f"pg_try_advisory_xact_lock({KEY})"
#: Which of ``pg_locks`` are held under *key*.
HELD = """l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.classid = ((key >> 32) & 4294967295)::oid AND l.objid = (key & 4294967295)::oid"""

#: ``claims.decide`` as a condition: the claims that are FRESH, and only they, are written. A row that another
#: transaction holds is waited for and then looked at as that one left it.
_OVER = """ON CONFLICT (consumer, job_id) DO UPDATE SET copy = excluded.copy, state = excluded.state,
        token = excluded.token, until = excluded.until, args_hash = coalesce(excluded.args_hash, r.args_hash),
        result = NULL, claimed = excluded.claimed
    WHERE (excluded.copy = 0 AND excluded.args_hash <> r.args_hash) IS NOT TRUE
        AND r.state NOT IN ('done', 'skipped')
        AND (excluded.copy > r.copy
            OR excluded.copy = r.copy AND r.state = 'running'
            AND (r.token = excluded.token OR r.until <= excluded.claimed))"""
_INTO = "INSERT INTO penstock_records AS r (consumer, job_id, copy, state, token, until, args_hash, claimed)"

#: A batch of claims, whose runs are to be seen by all. Passes over those whose effects are under way.
TAKE = f"""{_INTO}
    SELECT consumer, job_id, copy, 'running', token, now + lease, args_hash, now
    FROM json_to_recordset(%(asked)s::json)
        AS asked (consumer text, job_id text, copy integer, token bigint, lease bigint, args_hash text),
        (SELECT {NOW}) AS clock (now)
    WHERE {_FREE}
    ORDER BY {IN_ORDER}
    {_OVER}
    RETURNING r.consumer, r.job_id, r.until"""

_ONE = "(text, text, integer, bigint, text, bigint)"
_INSTANT = "coalesce($6, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint)"

#: One claim, in the transaction of its effect: what is committed with that says that the job is done. The first is for
#: a job that nothing is remembered of, with less to do for the server; the second for any.
PREPARE = f"""PREPARE penstock_take_new {_ONE} AS {_INTO}
    SELECT $1, $2, $3, 'done', $4, 0, $5, {_INSTANT} WHERE {_FREE.replace("job_id", "$2").replace("consumer", "$1")}
    ON CONFLICT DO NOTHING RETURNING r.ctid;
    PREPARE penstock_take {_ONE} AS {_INTO}
    SELECT consumer, job_id, copy, 'done', token, 0, args_hash, now
    FROM (VALUES ($1, $2, $3, $4, $5, {_INSTANT})) AS asked (consumer, job_id, copy, token, args_hash, now)
    WHERE {_FREE}
    {_OVER}
    RETURNING r.ctid"""

#: The claims whose effects are under way in another transaction, and for how long that has been left alone (ms; null
#: while it works, and where the server does not tell). One that was left alone for a lease is ended: its worker is
#: frozen, or gone. Others may only be ended by the same user.
UNDER_WAY = f"""SELECT consumer, job_id, alone, CASE WHEN alone >= lease THEN pg_terminate_backend(pid) END
    FROM (SELECT asked.*, {KEY} AS key
            FROM json_to_recordset(%(asked)s::json) AS asked (consumer text, job_id text, lease bigint)) AS asked
        JOIN pg_locks AS l ON {HELD}
        LEFT JOIN (SELECT pid AS of_pid, CASE WHEN state LIKE 'idle in transaction%%' AND usename = current_user
            THEN floor(extract(epoch FROM clock_timestamp() - state_change) * 1000)::bigint END AS alone
            FROM pg_stat_activity) AS activity ON of_pid = pid"""

#: The instant and what is remembered, a row for each claim; all columns but the first are null where nothing is.
FIND = f"""SELECT clock.now, {_COLUMNS} FROM (SELECT {NOW}) AS clock (now),
    json_to_recordset(%(asked)s::json) AS asked (consumer text, job_id text)
    LEFT JOIN penstock_records AS r USING (consumer, job_id)"""

UNLOCKED = """SELECT r.consumer, r.job_id
    FROM json_to_recordset(%(asked)s::json) AS asked (consumer text, job_id text)
    JOIN penstock_records AS r USING (consumer, job_id) FOR NO KEY UPDATE OF r SKIP LOCKED"""


def _held(columns: str, condition: str, change: str) -> str:
    """The statement that makes *change* to records whose token is known, and returns which they were."""
    return f"""WITH held AS (
        SELECT asked.*
        FROM json_to_recordset(%(asked)s::json) AS asked (consumer text, job_id text, token bigint, {columns})
        JOIN penstock_records AS r USING (consumer, job_id)
        WHERE r.token = asked.token AND ({condition})
        ORDER BY r.{IN_ORDER.replace(", ", ", r.")} FOR UPDATE OF r)
    UPDATE penstock_records AS r SET {change} FROM held
    WHERE r.consumer = held.consumer AND r.job_id = held.job_id AND r.token = held.token
    RETURNING r.consumer, r.job_id"""


END = _held(
    "state text, result text",
    "r.state = 'running' OR r.state = asked.state",
    "state = held.state, result = held.result",
)

#: A lease of 0 ends now.
LEASE = _held("lease bigint", "r.state = 'running'", f"until = {NOW} + held.lease")

#: A row that is locked is claimed, ended or forgotten by somebody this very moment: passed over.
EXPIRE = f"""WITH old AS (
        SELECT consumer, job_id FROM penstock_records
        WHERE claimed < %(before)s AND (state = 'running' AND until > {NOW}) IS NOT TRUE
        ORDER BY claimed LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    DELETE FROM penstock_records AS r USING old WHERE r.consumer = old.consumer AND r.job_id = old.job_id"""

RECORDS = f'SELECT {_COLUMNS} FROM penstock_records AS r WHERE job_id = %s ORDER BY consumer COLLATE "C"'
WRITABLE = "SELECT NOT (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean)"

HAS_SCHEMA = "SELECT to_regclass('penstock_schema') IS NOT NULL"
VERSION = "SELECT max(version) FROM penstock_schema"
COUNTS = "SELECT state, count(*) FROM penstock_records GROUP BY state"
OLDEST = "SELECT min(claimed) FROM penstock_records"
SETTINGS = "SELECT current_setting('fsync'), current_setting('synchronous_commit')"

Key = tuple[str, str]

#: Finds names that need only be put in quotes.
_PLAIN = re.compile(r"[A-Za-z0-9._:/@-]*", re.ASCII).fullmatch


def storable(text: str) -> str:
    """*text* as a column can hold it: PostgreSQL has no zero character, and job ids may come from anywhere."""
    return text.replace("\0", "\u2400")


def storable_claims(claims: Sequence[Claim]) -> Sequence[Claim]:
    """*claims* with job ids that a column can hold."""
    if not any("\0" in claim.job_id for claim in claims):
        return claims
    return [replace(claim, job_id=storable(claim.job_id)) for claim in claims]


def asked(claims: Sequence[Claim]) -> str:
    """*claims* as one parameter. As arrays they would take four times the processor's time of the client."""
    return orjson.dumps(claims).decode()


def asked_to_end(marks: Sequence[Mark]) -> str:
    """*marks* as one parameter."""
    return orjson.dumps(
        [
            {
                "consumer": mark.claim.consumer,
                "job_id": mark.claim.job_id,
                "token": mark.claim.token,
                "state": mark.state,
                "result": written(mark.result),
            }
            for mark in marks
        ]
    ).decode()


def written(result: bytes | None) -> str | None:
    """A result as its column has it."""
    return None if result is None else result.decode()


def record(row: tuple[Any, ...]) -> Record:
    """The record in a row of ``FIND`` (from its second column on) or ``RECORDS``."""
    consumer, job_id, copy, state, token, until, args_hash, result, claimed = row
    kept = None if result is None else result.encode()
    return Record(consumer, job_id, copy, State(state), token, until, args_hash, kept, claimed)


def take_within(connection: pq.abc.PGconn, claim: Claim, now: int | None, *, new: bool) -> bytes:
    """The words that claim a job in a transaction that is open, on a connection where ``PREPARE`` was said.

    *new*: only if nothing is remembered of it.
    """
    consumer, job_id = _literal(connection, claim.consumer), _literal(connection, claim.job_id)
    args_hash = "NULL" if claim.args_hash is None else f"'{claim.args_hash}'"
    name = "penstock_take_new" if new else "penstock_take"
    instant = "NULL" if now is None else now
    return f"EXECUTE {name}({consumer}, {job_id}, {claim.copy}, {claim.token}, {args_hash}, {instant})".encode()


def kept(connection: pq.abc.PGconn, place: bytes | None, result: bytes | None) -> Sequence[bytes]:
    """The words that end an effect whose claim is a part of it, at *place* in the table."""
    if result is None or place is None:
        return (b"COMMIT",)
    words = b"UPDATE penstock_records SET result = %b WHERE ctid = '%b'"
    return words % (bytes(pq.Escaping(connection).escape_literal(result)), place), b"COMMIT"


def _literal(connection: pq.abc.PGconn, text: str) -> str:
    if _PLAIN(text):
        return f"'{text}'"
    return bytes(pq.Escaping(connection).escape_literal(storable(text).encode())).decode()


def done(connection: pq.abc.PGconn, claim: Claim, result: bytes | None) -> bytes:
    """The words that end an effect: mark the job done, when *claim* still holds it, and only then commit."""
    consumer, job_id = _literal(connection, claim.consumer), _literal(connection, claim.job_id)
    kept = b"NULL" if result is None else bytes(pq.Escaping(connection).escape_literal(result))
    return b"SELECT penstock_done(%b, %b, %d, %b); COMMIT" % (consumer.encode(), job_id.encode(), claim.token, kept)
