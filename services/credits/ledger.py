"""The ledger in SQL, the same on SQLite and PostgreSQL: balances, and an entry for every job that changed them.

Everything happens in the transaction that is handed in, and counts once that is committed.
"""

from __future__ import annotations

from penstock import Transaction

#: The tables there are.
TABLES = ("credit_accounts", "credit_entries")

#: Entries have no unique key: it is the store's mark in the same transaction that lets a job be booked once, and if
#: ever it did not, a second entry would show.
_TABLES = (
    """CREATE TABLE IF NOT EXISTS credit_accounts (
        user_id BIGINT PRIMARY KEY,
        balance BIGINT NOT NULL CHECK (balance >= 0)
    )""",
    """CREATE TABLE IF NOT EXISTS credit_entries (
        job_id TEXT NOT NULL,
        from_user BIGINT,
        to_user BIGINT NOT NULL,
        amount BIGINT NOT NULL CHECK (amount > 0),
        reason TEXT,
        booked TIMESTAMPTZ NOT NULL DEFAULT CURRENT_TIMESTAMP
    )""",
    "CREATE INDEX IF NOT EXISTS credit_entries_booked ON credit_entries (booked)",
)
_GIVE = """INSERT INTO credit_accounts (user_id, balance) VALUES (%s, %s)
    ON CONFLICT (user_id) DO UPDATE SET balance = credit_accounts.balance + excluded.balance RETURNING balance"""
_TAKE = "UPDATE credit_accounts SET balance = balance - %s WHERE user_id = %s AND balance >= %s RETURNING balance"
_BALANCE = "SELECT balance FROM credit_accounts WHERE user_id = %s"
_BOOK = "INSERT INTO credit_entries (job_id, from_user, to_user, amount, reason) VALUES (%s, %s, %s, %s, %s)"


class Overdrawn(Exception):
    """A user has less than was to be taken."""


async def make_tables(tx: Transaction, _scheme: str) -> None:
    """Make what is missing; the same on SQLite and PostgreSQL. Idempotent."""
    for statement in _TABLES:
        await tx.execute(statement)


async def add(tx: Transaction, job_id: str, user: int, amount: int, reason: str | None) -> int:
    """Give *user* so much and book it; the balance then. An unknown user begins with nothing."""
    await tx.execute(_BOOK, (job_id, None, user, amount, reason))
    return await _give(tx, user, amount)


async def transfer(tx: Transaction, job_id: str, from_: int, to: int, amount: int, reason: str | None) -> int:
    """Move so much and book it; what is left to *from_*. Raises ``Overdrawn``: then roll the transaction back."""
    await tx.execute(_BOOK, (job_id, from_, to, amount, reason))
    # Accounts are locked in the order of their numbers: two opposite transfers never wait for each other.
    if to < from_:
        await _give(tx, to, amount)
        return await _take(tx, from_, amount)
    left = await _take(tx, from_, amount)
    await _give(tx, to, amount)
    return left


async def balance(tx: Transaction, user: int) -> int:
    """What *user* has."""
    row = (await tx.execute(_BALANCE, (user,))).fetchone()
    return 0 if row is None else int(row[0])


async def _give(tx: Transaction, user: int, amount: int) -> int:
    # In one statement: who reads, adds and writes back loses what came between.
    row = (await tx.execute(_GIVE, (user, amount))).fetchone()
    assert row is not None, "an upsert gives its row back"
    return int(row[0])


async def _take(tx: Transaction, user: int, amount: int) -> int:
    row = (await tx.execute(_TAKE, (amount, user, amount))).fetchone()
    if row is None:
        raise Overdrawn(f"user {user} has {await balance(tx, user)}, not {amount}")
    return int(row[0])
