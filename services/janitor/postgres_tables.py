"""Tables that expire in a PostgreSQL database."""

from __future__ import annotations

import psycopg

from penstock import Transaction
from services.janitor.ports import Problem
from services.janitor.rules import TableRule, Unit
from services.janitor.tables import Dialect, quoted

#: Who is locked works with the row this very moment, and is passed over: nobody waits for us, and we for nobody.
_DELETE = """DELETE FROM ONLY {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM ONLY {table}
        WHERE {column} >= %(floor)s AND {column} < %(before)s ORDER BY {column} LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED))
    AND {column} < %(before)s"""
_COUNT = """SELECT count(*) FROM (SELECT 1 FROM ONLY {table}
    WHERE {column} >= %(floor)s AND {column} < %(before)s LIMIT %(limit)s) AS found"""

#: Somebody may change the table itself, and foreign keys may make a row expensive.
_BOUNDED = "SELECT set_config('lock_timeout', '2s', true), set_config('statement_timeout', '30s', true)"

_LOOK = """SELECT c.relkind::text, a.atttypid::regtype::text, EXISTS (
        SELECT 1 FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indisvalid)
    FROM pg_class AS c LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = %s AND NOT a.attisdropped
    WHERE c.oid = to_regclass(%s)"""
_TYPES = {Unit.TIMESTAMP: "timestamp with time zone", Unit.MILLISECONDS: "bigint"}

#: Too slow, too long behind a lock, or caught in a deadlock.
_PASSING = frozenset({"57014", "55P03", "40P01", "40001"})


async def _look(tx: Transaction, rule: TableRule) -> bool:
    row = (await tx.execute(_LOOK, (rule.column, quoted(rule.table)))).fetchone()
    if row is None:
        return False
    kind, column_type, indexed = row
    if kind != "r":
        raise Problem(f"{rule.table} is no plain table (it may be a view, or have partitions): it cannot be purged")
    if column_type is None:
        raise Problem(f"table {rule.table} has no column {rule.column}")
    if column_type != _TYPES[rule.unit]:
        raise Problem(
            f"table {rule.table}: {rule.column} is {column_type}; with unit {rule.unit}, it must be {_TYPES[rule.unit]}"
        )
    if not indexed:
        raise Problem(f"table {rule.table} has no index that begins with {rule.column}: every batch would read it all")
    return True


def _is_passing(error: Exception) -> bool:
    return isinstance(error, psycopg.Error) and error.sqlstate in _PASSING


DIALECT = Dialect(
    look=_look,
    instant=lambda instant: instant,
    delete=_DELETE,
    count=_COUNT,
    errors=psycopg.Error,
    passing=_is_passing,
    bounded=_BOUNDED,
)
