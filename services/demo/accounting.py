"""Where every published job ended, by its effects and its dead letters alone: pure, no files and no broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from services.demo.heartbeat import Ticks


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, as far as it matters here."""

    id: str
    run: str
    queue: str
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class Credited:
    """What of an account concerns credits: jobs that are booked, and entries beyond the first of their job."""

    done: int = 0
    doubled: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """What became of a run. A job that has both an effect and a dead letter counts as done, and once as doubled."""

    published: int
    done: int
    dead: int
    #: Published, but neither done nor dead.
    lost: tuple[str, ...]
    #: Effects and letters beyond the first of their job.
    doubled: int
    #: Effects and letters of this run that nobody published.
    strange: tuple[str, ...]
    credits: Credited = Credited()
    #: In what way the ledger of credits is not the sum of its jobs.
    faults: tuple[str, ...] = ()
    #: What came by the clock, which nobody published; None when there was no schedule.
    ticks: Ticks | None = None

    @property
    def right(self) -> bool:
        """Whether every job is accounted for, and every credit job and every tick of the schedule has one effect.
        A mail may be sent twice."""
        wrong = self.lost or self.strange or self.faults or self.credits.doubled
        return not wrong and (self.ticks is None or self.ticks.right)

    @property
    def line(self) -> str:
        """The account in one line."""
        return (
            f"accounted: {self.published} published = {self.done} done + {self.dead} dead; "
            f"lost {len(self.lost)}; doubled {self.doubled} "
            f"(credits: {self.credits.done} done, doubled {self.credits.doubled})"
        )


def account(
    published: Collection[str],
    effects: Iterable[str],
    letters: Iterable[str],
    entries: Collection[str] = (),
    faults: Iterable[str] = (),
) -> Account:
    """Compare the ids of *published* jobs with those of their *effects*, dead *letters* and *entries* in the ledger."""
    booked = Counter(entries)
    done, dead = Counter(effects) + booked, Counter(letters)
    ids = set(published)
    seen = done + dead
    return Account(
        published=len(ids),
        done=len(ids & done.keys()),
        dead=len(ids & (dead.keys() - done.keys())),
        lost=tuple(sorted(ids - seen.keys())),
        doubled=sum(seen.values()) - len(seen),
        strange=tuple(sorted(seen.keys() - ids)),
        credits=Credited(len(ids & booked.keys()), booked.total() - len(booked)),
        faults=tuple(faults),
    )


@dataclass(frozen=True, slots=True)
class Pile:
    """Dead letters that lie in the same queue for the same reason."""

    queue: str
    reason: str
    error: str
    count: int
    example: str


def piles(letters: Iterable[Letter]) -> list[Pile]:
    """Sort *letters* by queue, reason and error, the largest pile first."""
    found: dict[tuple[str, str, str], list[Letter]] = {}
    for letter in letters:
        found.setdefault((letter.queue, letter.reason, letter.error), []).append(letter)
    sorted_piles = [Pile(*key, len(pile), pile[0].id) for key, pile in found.items()]
    return sorted(sorted_piles, key=lambda pile: (-pile.count, pile.queue, pile.reason, pile.error))
