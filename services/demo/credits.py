"""Jobs of credits as a nervous customer hands them in: some of them twice or three times, a few that cannot be."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any  # jobs of two kinds

from penstock import NewJob
from penstock.clock import new_job_id
from penstock_jobs.credits import CREDIT_ADD, CREDIT_TRANSFER, CreditAdd, CreditTransfer
from services.demo.door import Door
from services.demo.ledger import Entry

#: Users with credits. What each is given to begin with is more than all its transfers together could take.
USERS = range(101, 121)
OPENING = 10_000

#: A user who has nothing: transfers from here are rejected.
PAUPER = 999

#: One job in so many is handed in once more, and one in so many twice more.
TWICE_EVERY, THRICE_EVERY = 7, 11


@dataclass(frozen=True, slots=True)
class Credits:
    """The credits of a run: jobs that open the accounts, and the others, for when the accounts are open."""

    opening: Sequence[Entry]
    others: Sequence[Entry]

    def __len__(self) -> int:
        return len(self.opening) + len(self.others)

    @property
    def booked(self) -> int:
        """How many of the jobs can be booked."""
        return sum(entry.from_user != PAUPER for entry in (*self.opening, *self.others))

    @classmethod
    def made_up(cls, run: str, adds: int, transfers: int, overdrafts: int) -> Credits:
        """*adds* gifts and *transfers* between users, and *overdrafts* transfers from somebody who has nothing."""
        dice = random.Random(11)
        others = [
            *(_entry(run, None, dice.choice(USERS), dice.randint(1, 100)) for _ in range(adds - len(USERS))),
            *(_entry(run, giver, taker, dice.randint(1, 100)) for giver, taker in _pairs(dice, transfers)),
            *(_entry(run, PAUPER, dice.choice(USERS), 100) for _ in range(overdrafts)),
        ]
        dice.shuffle(others)
        return cls([_entry(run, None, user, OPENING) for user in USERS], others)


async def send_credits(door: Door, entries: Sequence[Entry]) -> list[Entry]:
    """Hand in a job for each of *entries*, some more than once under the same key; the entries by their jobs' ids."""
    again = [*entries[::TWICE_EVERY], *entries[::THRICE_EVERY], *entries[::THRICE_EVERY]]
    asked = [*entries, *again]
    random.Random(13).shuffle(asked)
    ids = await door.submit([_job(entry) for entry in asked])
    return list({job_id: replace(entry, id=job_id) for entry, job_id in zip(asked, ids, strict=True)}.values())


def _pairs(dice: random.Random, count: int) -> Iterator[tuple[int, int]]:
    for _ in range(count):
        giver, taker = dice.sample(USERS, 2)
        yield giver, taker


def _entry(run: str, from_user: int | None, to_user: int, amount: int) -> Entry:
    return Entry(new_job_id(), from_user, to_user, amount, run)


def _job(entry: Entry) -> NewJob[Any]:
    if entry.from_user is None:
        gift = CreditAdd(user=entry.to_user, amount=entry.amount, reason=entry.reason)
        return CREDIT_ADD.new(gift, id=entry.id, correlation_id=entry.reason)
    move = CreditTransfer(from_=entry.from_user, to=entry.to_user, amount=entry.amount, reason=entry.reason)
    return CREDIT_TRANSFER.new(move, id=entry.id, correlation_id=entry.reason)
