"""A table of things that expire, for the janitor: made, filled and looked into from outside, on either database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any  # connections of two drivers, rows of any statement

from penstock.claims import StoreUrl
from services.janitor.handlers import Janitor
from services.janitor.rules import Rules, parse_rules
from tests.support.outboxes import connect

RULES = "tables: {things: {column: at, keep: 30d}}"

OLD, FRESH = timedelta(days=31), timedelta(days=29)


def run(url: str, *statements: str) -> None:
    """Run *statements* and commit."""
    with closing(connect(url)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def with_things(url: str, *, old: int, fresh: int = 0, timeless: int = 0) -> None:
    """A table ``things`` in the database at *url* with so many of each; their ``kind`` says what they are."""
    run(
        url,
        "CREATE TABLE things (id BIGINT PRIMARY KEY, kind TEXT NOT NULL, at TIMESTAMPTZ)",
        "CREATE INDEX things_at ON things (at)",
    )
    rows = [("old", instant(OLD))] * old + [("fresh", instant(FRESH))] * fresh + [("timeless", None)] * timeless
    insert(url, [(number, *row) for number, row in enumerate(rows)])


def insert(url: str, things: list[tuple[int, str, Any]]) -> None:
    """Put *things* into the table."""
    mark = "?" if url.startswith("sqlite") else "%s"
    with closing(connect(url)) as connection:
        connection.cursor().executemany(f"INSERT INTO things VALUES ({mark}, {mark}, {mark})", things)
        connection.commit()


def instant(ago: timedelta) -> str:
    """So long ago, as both databases read it."""
    return (datetime.now(UTC) - ago).strftime("%Y-%m-%d %H:%M:%SZ")


def things(url: str) -> dict[str, int]:
    """How many of each kind there are."""
    with looking(url) as connection:
        return count(connection)


@contextmanager
def looking(url: str) -> Iterator[Any]:
    """A connection to look with."""
    with closing(connect(url)) as connection:
        yield connection


def count(connection: Any) -> dict[str, int]:
    """As ``things``, for a connection that is open."""
    found = dict(connection.execute("SELECT kind, count(*) FROM things GROUP BY kind").fetchall())
    connection.commit()
    return found


def a_janitor(url: str, rules: str | Rules = RULES, budget: timedelta = timedelta(minutes=1)) -> Janitor:
    """A janitor for the database at *url* that goes by *rules*."""
    read = parse_rules(rules) if isinstance(rules, str) else rules
    return Janitor(read, StoreUrl.parse(url), timedelta(days=30), budget)
