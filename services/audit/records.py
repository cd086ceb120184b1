"""The audit's records in SQL: a table that takes new rows, and refuses to change, delete or empty them.

Everything happens in the transaction that is handed in, and counts once that is committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock import Transaction
from penstock.topology.matching import matches

#: The table there is.
TABLE = "audit_jobs"

_TABLE = """CREATE TABLE IF NOT EXISTS audit_jobs (
        entry {number},
        job_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        app_id TEXT,
        correlation_id TEXT,
        published BIGINT,
        recorded BIGINT NOT NULL DEFAULT ({now}),
        args_sha256 TEXT NOT NULL,
        args_bytes BIGINT NOT NULL
    )"""
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS audit_jobs_recorded ON audit_jobs (recorded)",
    "CREATE INDEX IF NOT EXISTS audit_jobs_kind ON audit_jobs (kind, entry)",
    "CREATE INDEX IF NOT EXISTS audit_jobs_job ON audit_jobs (job_id)",
)

#: The insert is guarded as well: a row that replaces another one deletes it, and no trigger on DELETE hears of it
#: (https://sqlite.org/lang_conflict.html). There is no TRUNCATE, and a DELETE of everything is heard.
_SQLITE_GUARDS = (
    """CREATE TRIGGER IF NOT EXISTS audit_jobs_no_update BEFORE UPDATE ON audit_jobs
        BEGIN SELECT RAISE(ABORT, 'audit_jobs is append-only: no UPDATE'); END""",
    """CREATE TRIGGER IF NOT EXISTS audit_jobs_no_delete BEFORE DELETE ON audit_jobs
        BEGIN SELECT RAISE(ABORT, 'audit_jobs is append-only: no DELETE'); END""",
    """CREATE TRIGGER IF NOT EXISTS audit_jobs_no_replace BEFORE INSERT ON audit_jobs
        WHEN EXISTS (SELECT 1 FROM audit_jobs WHERE entry = NEW.entry)
        BEGIN SELECT RAISE(ABORT, 'audit_jobs is append-only: no REPLACE'); END""",
)

#: Of the statement, not of the row: only so TRUNCATE is heard. ALWAYS: else a session may say that it is a replica.
_POSTGRES_GUARDS = (
    """CREATE OR REPLACE FUNCTION audit_jobs_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'audit_jobs is append-only: no %', TG_OP USING ERRCODE = 'insufficient_privilege';
        END $$""",
    """CREATE OR REPLACE TRIGGER audit_jobs_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_jobs
        FOR EACH STATEMENT EXECUTE FUNCTION audit_jobs_append_only()""",
    "ALTER TABLE audit_jobs ENABLE ALWAYS TRIGGER audit_jobs_append_only",
)

_COLUMNS = "job_id, kind, app_id, correlation_id, published, args_sha256, args_bytes"
_ADD = f"INSERT INTO audit_jobs ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s, %s, %s)"


@dataclass(frozen=True, slots=True)
class _Dialect:
    number: str
    now: str
    guards: Sequence[str]


_DIALECTS: Mapping[str, _Dialect] = {
    "sqlite": _Dialect(
        "INTEGER PRIMARY KEY AUTOINCREMENT",
        "CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)",
        _SQLITE_GUARDS,
    ),
    "postgresql": _Dialect(
        "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint",
        _POSTGRES_GUARDS,
    ),
}


@dataclass(frozen=True, slots=True)
class Record:
    """One job as it was published. Instants are milliseconds since 1970 UTC.

    *published*: by the producer's clock, None when it did not say. *recorded*: by the database's. *args_sha256*, in
    hexadecimal, and *args_bytes* are those of the arguments as canonical JSON.
    """

    job_id: str
    kind: str
    app_id: str | None
    correlation_id: str | None
    published: int | None
    args_sha256: str
    args_bytes: int
    recorded: int | None = None


async def make_table(tx: Transaction, scheme: str) -> None:
    """Make what is missing in a database of *scheme*, ``sqlite`` or ``postgresql``. Idempotent."""
    dialect = _DIALECTS[scheme]
    table = _TABLE.format(number=dialect.number, now=dialect.now)
    for statement in (table, *_INDEXES, *dialect.guards):
        await tx.execute(statement)


async def add(tx: Transaction, record: Record) -> None:
    """Write *record* down; its instant is the database's."""
    values = (record.job_id, record.kind, record.app_id, record.correlation_id, record.published)
    await tx.execute(_ADD, (*values, record.args_sha256, record.args_bytes))


async def latest(tx: Transaction, limit: int, *, kind: str | None = None, since: int = 0) -> list[Record]:
    """Up to *limit* records in the order in which they were made, the last ones: of kinds that fit the pattern *kind*,
    recorded at *since* or later."""
    kinds = await _kinds(tx, kind)
    if not kinds:
        return []
    chosen = "" if kind is None else f" AND kind IN ({', '.join(['%s'] * len(kinds))})"
    statement = f"SELECT {_COLUMNS}, recorded FROM audit_jobs WHERE recorded >= %s{chosen} ORDER BY entry DESC LIMIT %s"
    found = await tx.execute(statement, (since, *(kinds if kind is not None else ()), limit))
    return [Record(*row) for row in reversed(found.fetchall())]


async def _kinds(tx: Transaction, pattern: str | None) -> list[str]:
    """The kinds that were recorded, those that fit *pattern*."""
    found = (await tx.execute("SELECT DISTINCT kind FROM audit_jobs")).fetchall()
    return [kind for (kind,) in found if pattern is None or matches(pattern, kind)]
