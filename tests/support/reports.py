"""Reports under test: definitions of them for SQLite and PostgreSQL, and what a database answers."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any  # rows of any query

from services.reports.databases import open_databases, read_places
from services.reports.definitions import Definition, parse_definitions
from services.reports.ports import Database
from tests.support.outboxes import connect

#: As many rows as asked for, the same from both databases.
_MANY = {
    "sqlite": """
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows)
        SELECT i AS id, 'customer ' || (i % 97) AS customer, date('2026-01-01', '+' || (i % 365) || ' days') AS day,
               (i % 100000) / 100.0 AS amount, CASE WHEN i % 3 THEN 'a note on order ' || i END AS note, i % 2 AS paid
        FROM n""",
    "postgresql": """
        SELECT i AS id, 'customer ' || (i % 97) AS customer, date '2026-01-01' + (i % 365)::int AS day,
               (i % 100000) / 100.0 AS amount, CASE WHEN i % 3 <> 0 THEN 'a note on order ' || i END AS note,
               i % 2 = 1 AS paid
        FROM generate_series(1, :rows) AS i""",
}
_MANY_COLUMNS = (
    "{id: {type: integer}, customer: {}, day: {type: date}, amount: {type: decimal, places: 2, total: true}, "
    "note: {}, paid: {type: boolean}}"
)


def yaml_of(name: str, sql: str, columns: str, parameters: str = "{}", **more: str) -> str:
    """The definition of a report on database ``shop``; *columns*, *parameters* and *more* are YAML in one line."""
    fields = {"title": "A report", "database": "shop", "parameters": parameters, "sql": json.dumps(sql), **more}
    return f"  {name}: {{{', '.join(f'{field}: {text}' for field, text in fields.items())}, columns: {columns}}}\n"


def many(url: str) -> str:
    """The definition of report ``many``, with as many rows as its parameter says, for the database at *url*."""
    chart = "{kind: line, label: day, by: month, value: amount}"
    return yaml_of("many", _MANY[scheme_of(url)], _MANY_COLUMNS, "{rows: {type: integer}}", chart=chart)


def report_of(sql: str, columns: str = "{a: {}}", parameters: str = "{}") -> Definition:
    """A report of *sql*."""
    [definition] = parse_definitions(f"reports:\n{yaml_of('r', sql, columns, parameters)}").values()
    return definition


def database_at(url: str, patience: float = 30) -> Database:
    """The database at *url*, which has *patience* seconds for an answer."""
    return open_databases(read_places(f"shop={url}"), timedelta(seconds=patience))["shop"]


def answer_of(database: Database, report: Definition, **given: object) -> list[tuple[Any, ...]]:
    """Every row that *database* gives for *report*."""
    arguments = report.arguments(given, datetime(2026, 8, 3, 7, tzinfo=UTC))
    with database.reading(report.statement, report.types, arguments) as found:
        return [tuple(row) for batch in found.batches for row in batch]


def execute(url: str, *statements: str) -> None:
    """Run *statements* in the database at *url*, and commit."""
    with closing(connect(url)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def scheme_of(url: str) -> str:
    """``sqlite`` or ``postgresql``."""
    return url.partition(":")[0]
