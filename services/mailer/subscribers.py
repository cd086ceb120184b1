"""Who gets the daily digest, in SQL: the same on SQLite and PostgreSQL but for how a number is given.

Everything happens in the transaction that is handed in, and counts once that is committed.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock import Transaction

#: Numbers are never given twice: the id of a day's mail is made of them.
_NUMBER = {
    "sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT",
    "postgresql": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
}
_TABLE = """CREATE TABLE IF NOT EXISTS mailer_subscribers (
        id {number},
        email TEXT NOT NULL,
        name TEXT NOT NULL,
        subscribed_at TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP,
        unsubscribed_at TIMESTAMPTZ
    )"""
_INDEXES = (
    "CREATE UNIQUE INDEX IF NOT EXISTS mailer_subscribers_email ON mailer_subscribers (lower(email))",
    """CREATE INDEX IF NOT EXISTS mailer_subscribers_gone ON mailer_subscribers (unsubscribed_at)
        WHERE unsubscribed_at IS NOT NULL""",
)
_JOIN = """INSERT INTO mailer_subscribers (email, name) VALUES (%s, %s) ON CONFLICT (lower(email)) DO UPDATE
    SET email = excluded.email, name = excluded.name, subscribed_at = CURRENT_TIMESTAMP, unsubscribed_at = NULL
    RETURNING id"""
_LEAVE = """UPDATE mailer_subscribers SET unsubscribed_at = CURRENT_TIMESTAMP
    WHERE lower(email) = lower(%s) AND unsubscribed_at IS NULL"""
_PAGE = """SELECT id, email, name FROM mailer_subscribers WHERE id > %s AND unsubscribed_at IS NULL
    ORDER BY id LIMIT %s"""

#: The stores that can hold subscribers.
SCHEMES = frozenset(_NUMBER)


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Somebody who wants the digest."""

    id: int
    email: str
    name: str


async def make_tables(tx: Transaction, scheme: str) -> None:
    """Make what is missing in a database of *scheme*, ``sqlite`` or ``postgresql``. Idempotent."""
    for statement in (_TABLE.format(number=_NUMBER[scheme]), *_INDEXES):
        await tx.execute(statement)


async def subscribe(tx: Transaction, email: str, name: str) -> int:
    """Let *email* get the digest from now on; its number, which stays the same however often it comes and goes."""
    row = (await tx.execute(_JOIN, (email, name))).fetchone()
    assert row is not None, "an upsert gives its row back"
    return int(row[0])


async def unsubscribe(tx: Transaction, email: str) -> bool:
    """Let *email* get no more digests; False when it got none."""
    return (await tx.execute(_LEAVE, (email,))).rowcount > 0


async def page(tx: Transaction, after: int, limit: int) -> list[Subscriber]:
    """Up to *limit* subscribers whose number is above *after*, by number."""
    return [Subscriber(*row) for row in (await tx.execute(_PAGE, (after, limit))).fetchall()]
