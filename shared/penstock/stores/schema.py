"""The tables of a store in SQL, version by version: a released version never changes, a further one is added."""

from __future__ import annotations

from collections.abc import Sequence

#: How PostgreSQL's function says that a claim does not hold its record: a code nobody else uses.
FENCED = "PF001"

#: The coarse columns that are indexed do not change when a job ends: on PostgreSQL such an update touches no index
#: (a heap-only tuple, https://www.postgresql.org/docs/15/storage-hot.html), so the cost of a job stays flat.
POSTGRES: Sequence[Sequence[str]] = (
    (
        """CREATE TABLE penstock_records (
            consumer text NOT NULL,
            job_id text NOT NULL,
            copy integer NOT NULL,
            state text NOT NULL,
            token bigint NOT NULL,
            until bigint NOT NULL,
            args_hash text,
            result text,
            claimed bigint NOT NULL,
            PRIMARY KEY (job_id, consumer)
        ) WITH (fillfactor = 85)""",
        "CREATE INDEX penstock_records_claimed ON penstock_records (claimed)",
        # The last word of an effect, in one message with its COMMIT: what it raises keeps that from being carried out.
        # A function has settings of its own: a plan made while the table was small would read all of it for a while.
        f"""CREATE FUNCTION penstock_done(for_consumer text, of_job text, by_token bigint, with_result text)
            RETURNS void LANGUAGE plpgsql SET enable_seqscan = off AS $$
            BEGIN
                UPDATE penstock_records SET state = 'done', result = with_result
                WHERE consumer = for_consumer AND job_id = of_job AND token = by_token AND state = 'running';
                IF NOT FOUND THEN
                    RAISE EXCEPTION 'another run has taken the job over' USING ERRCODE = '{FENCED}';
                END IF;
            END $$""",
        """CREATE TABLE penstock_outbox (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            kind text NOT NULL,
            job_id text NOT NULL,
            body bytea NOT NULL,
            due bigint,
            expires bigint,
            correlation_id text,
            app_id text,
            created bigint NOT NULL,
            published bigint,
            parked text
        ) WITH (autovacuum_vacuum_scale_factor = 0.02)""",  # every publish leaves a dead entry where relays look
        """CREATE INDEX penstock_outbox_waiting ON penstock_outbox (kind, id)
            WHERE published IS NULL AND parked IS NULL""",
        "CREATE INDEX penstock_outbox_published ON penstock_outbox (published) WHERE published IS NOT NULL",
        "CREATE INDEX penstock_outbox_parked ON penstock_outbox (id) WHERE parked IS NOT NULL",
        "CREATE TABLE penstock_outbox_kinds (kind text PRIMARY KEY)",
    ),
    (
        """CREATE TABLE penstock_overlap (
            consumer text NOT NULL,
            schedule text NOT NULL,
            holder text,
            until bigint NOT NULL DEFAULT 0,
            waiting text,
            waits_until bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (schedule, consumer)
        )""",
        "CREATE INDEX penstock_overlap_until ON penstock_overlap (until)",
    ),
    # The trace that a job was added in: header names and values as a JSON object.
    ("ALTER TABLE penstock_outbox ADD COLUMN headers text",),
    # Those whose claims may be a part of their effects, where no record says whose runs to look for.
    ("CREATE TABLE penstock_consumers (consumer text PRIMARY KEY)",),
)

SQLITE: Sequence[Sequence[str]] = (
    (
        """CREATE TABLE penstock_records (
            consumer TEXT NOT NULL,
            job_id TEXT NOT NULL,
            copy INTEGER NOT NULL,
            state TEXT NOT NULL,
            token INTEGER NOT NULL,
            until INTEGER NOT NULL,
            args_hash TEXT,
            result TEXT,
            claimed INTEGER NOT NULL,
            PRIMARY KEY (job_id, consumer)
        ) WITHOUT ROWID""",
        "CREATE INDEX penstock_records_claimed ON penstock_records (claimed)",
        """CREATE TABLE penstock_outbox (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            kind TEXT NOT NULL,
            job_id TEXT NOT NULL,
            body BLOB NOT NULL,
            due INTEGER,
            expires INTEGER,
            correlation_id TEXT,
            app_id TEXT,
            created INTEGER NOT NULL,
            published INTEGER,
            parked TEXT
        )""",
        """CREATE INDEX penstock_outbox_waiting ON penstock_outbox (kind, id)
            WHERE published IS NULL AND parked IS NULL""",
        "CREATE INDEX penstock_outbox_published ON penstock_outbox (published) WHERE published IS NOT NULL",
        "CREATE INDEX penstock_outbox_parked ON penstock_outbox (id) WHERE parked IS NOT NULL",
        """CREATE TABLE penstock_outbox_kinds (
            kind TEXT PRIMARY KEY,
            relay INTEGER NOT NULL DEFAULT 0,
            until INTEGER NOT NULL DEFAULT 0
        ) WITHOUT ROWID""",
    ),
    (
        """CREATE TABLE penstock_overlap (
            consumer TEXT NOT NULL,
            schedule TEXT NOT NULL,
            holder TEXT,
            until INTEGER NOT NULL,
            waiting TEXT,
            waits_until INTEGER NOT NULL,
            PRIMARY KEY (schedule, consumer)
        ) WITHOUT ROWID""",
        "CREATE INDEX penstock_overlap_until ON penstock_overlap (until)",
    ),
    # The trace that a job was added in: header names and values as a JSON object.
    ("ALTER TABLE penstock_outbox ADD COLUMN headers text",),
)

#: Holds one row: the version the tables have. On PostgreSQL and SQLite alike.
VERSION_TABLE = "CREATE TABLE IF NOT EXISTS penstock_schema (version bigint NOT NULL)"


def missing(steps: Sequence[Sequence[str]], version: int | None) -> Sequence[str]:
    """The statements that bring a schema of *version* (None: there is none) to the newest."""
    return [statement for step in steps[version or 0 :] for statement in step]
