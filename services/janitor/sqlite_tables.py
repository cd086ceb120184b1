"""Tables that expire in a SQLite file."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

from penstock import Transaction
from services.janitor.ports import Problem
from services.janitor.rules import TableRule
from services.janitor.tables import Dialect

_COUNT = """SELECT count(*) FROM (SELECT 1 FROM {table}
    WHERE {column} >= %(floor)s AND {column} < %(before)s LIMIT %(limit)s)"""
_DELETE = """DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table}
    WHERE {column} >= %(floor)s AND {column} < %(before)s ORDER BY {column} LIMIT %(limit)s)"""

_TABLE = "SELECT type, wr FROM pragma_table_list(%s) WHERE schema = 'main'"
_COLUMN = "SELECT 1 FROM pragma_table_info(%s) WHERE name = %s"
_INDEX = """SELECT 1 FROM pragma_index_list(%s) AS list JOIN pragma_index_info(list.name) AS info
    WHERE info.seqno = 0 AND info.name = %s"""


async def _look(tx: Transaction, rule: TableRule) -> bool:
    if "." in rule.table:
        raise Problem(f"table {rule.table}: SQLite has no schemas, leave the first part out")
    row = (await tx.execute(_TABLE, (rule.table,))).fetchone()
    if row is None:
        return False
    kind, without_rowid = row
    if kind != "table" or without_rowid:
        raise Problem(f"{kind} {rule.table} has no rowid: only plain tables can be purged")
    if not (await tx.execute(_COLUMN, (rule.table, rule.column))).fetchall():
        raise Problem(f"table {rule.table} has no column {rule.column}")
    if not (await tx.execute(_INDEX, (rule.table, rule.column))).fetchall():
        raise Problem(f"table {rule.table} has no index that begins with {rule.column}: every batch would read it all")
    return True


def _text(instant: datetime) -> str:
    # As CURRENT_TIMESTAMP writes it. Text with a T or a zone at its end sorts after it within a day, so it is kept
    # a day longer and never deleted too soon. Numbers sort before every text: the floor leaves them out.
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


DIALECT = Dialect(
    look=_look, instant=_text, delete=_DELETE, count=_COUNT, errors=sqlite3.Error, passing=lambda _: False
)
