"""The ledger of credits, read from the database with SQLite alone, and whether it is what was asked for."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

_ENTRIES = "SELECT job_id, from_user, to_user, amount, reason FROM credit_entries"
_ACCOUNTS = "SELECT user_id, balance FROM credit_accounts"


@dataclass(frozen=True, slots=True)
class Entry:
    """What one job does to accounts; *from_user* is None for a gift. *reason* is the run that asked for it."""

    id: str
    from_user: int | None
    to_user: int
    amount: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Ledger:
    """Every entry, as often as it is there, and every balance, at one instant."""

    entries: Sequence[Entry] = ()
    balances: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Ledger:
        """The ledger in the file at *path*, which is only looked at."""
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as file:
            file.execute("BEGIN")
            return cls([Entry(*row) for row in file.execute(_ENTRIES)], dict(file.execute(_ACCOUNTS).fetchall()))

    def ids(self, run: str) -> list[str]:
        """The job ids of the entries of *run*, as often as each is there."""
        return [entry.id for entry in self.entries if entry.reason == run]

    def faults(self, asked: Iterable[Entry]) -> list[str]:
        """In what way entries are not what was *asked*, or balances not the sum of it, each job counted once."""
        wanted = {entry.id: entry for entry in asked}
        booked = {entry.id: entry for entry in self.entries}
        changed = [job_id for job_id, entry in booked.items() if wanted.get(job_id, entry) != entry]
        sums = _sums(wanted.get(job_id, entry) for job_id, entry in booked.items())
        users = sorted(self.balances.keys() | sums.keys())
        return [f"job {job_id} was booked otherwise than asked" for job_id in changed] + [
            f"user {user} has {has}, not {sums[user]}"
            for user in users
            if (has := self.balances.get(user, 0)) != sums[user]
        ]


def _sums(entries: Iterable[Entry]) -> Counter[int]:
    sums: Counter[int] = Counter()
    for entry in entries:
        sums[entry.to_user] += entry.amount
        if entry.from_user is not None:
            sums[entry.from_user] -= entry.amount
    return sums
