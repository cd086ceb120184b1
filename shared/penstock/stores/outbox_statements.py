"""What relays say to an outbox in words that PostgreSQL and SQLite share."""

from __future__ import annotations

from penstock.errors import ConfigError

#: What is neither published nor parked, also the condition of the index that finds it. Never a watermark: a
#: transaction may commit long after another one that took a higher number.
WAITS = "published IS NULL AND parked IS NULL"

COLUMNS = "id, kind, job_id, body, due, expires, correlation_id, app_id, headers"

#: The kinds of which jobs wait: from each the index leads straight to the next, however many jobs there are.
KINDS = f"""WITH RECURSIVE kinds (kind) AS (
        SELECT min(kind) FROM penstock_outbox WHERE {WAITS}
        UNION ALL
        SELECT (SELECT min(o.kind) FROM penstock_outbox AS o
            WHERE o.published IS NULL AND o.parked IS NULL AND o.kind > kinds.kind)
        FROM kinds WHERE kinds.kind IS NOT NULL)
    SELECT kind FROM kinds WHERE kind IS NOT NULL"""

#: By kind: how many wait, when the one of the lowest number was added, how many are parked.
BACKLOG = f"""SELECT kind, sum(waiting), max(oldest), sum(parked) FROM (
        SELECT w.kind, w.waiting, o.created AS oldest, 0 AS parked FROM (
            SELECT kind, count(*) AS waiting, min(id) AS first FROM penstock_outbox WHERE {WAITS} GROUP BY kind) AS w
        JOIN penstock_outbox AS o ON o.id = w.first
        UNION ALL
        SELECT kind, 0, NULL, count(*) FROM penstock_outbox WHERE parked IS NOT NULL GROUP BY kind) AS found
    GROUP BY kind ORDER BY kind"""


def check_version(version: int | None, newest: int, where: str) -> None:
    """Raise ``ConfigError`` unless the schema of the database *where* is the one this library knows."""
    if version is None or version < newest:
        raise ConfigError(f"{where} has schema {version or 'none'}, not {newest}: run penstock store migrate")
    if version > newest:
        raise ConfigError(f"{where} has schema {version}, newer than this penstock knows ({newest}): update it")
