"""Dead letters counted by what they died of, in memory that does not grow with their number."""

from __future__ import annotations

from dataclasses import dataclass, field

from penstock.fingerprints import Fingerprint
from penstock.letters import DeadLetter

#: Groups that are told apart; letters of further ones are counted together.
MAX_GROUPS = 1000

#: Kinds, queues and ids of a group that are kept.
_EXAMPLES = 5

_REST = Fingerprint("", "", "letters of further groups, counted together", "")


@dataclass(slots=True)
class Group:
    """The letters of one fingerprint. Instants are milliseconds since 1970 UTC; None when no letter says.

    *kinds*, *queues* and *ids* are examples, not all of them.
    """

    fingerprint: Fingerprint
    count: int = 0
    first: int | None = None
    last: int | None = None
    kinds: list[str] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        """What a filter calls the group; empty for what was counted together, which no filter can name."""
        return "" if self.fingerprint is _REST else self.fingerprint.id

    def add(self, letter: DeadLetter) -> None:
        """Count *letter* in."""
        self.count += 1
        if letter.died is not None:
            self.first = letter.died if self.first is None else min(self.first, letter.died)
            self.last = letter.died if self.last is None else max(self.last, letter.died)
        for examples, one in ((self.kinds, letter.kind), (self.queues, letter.queue), (self.ids, letter.id)):
            if len(examples) < _EXAMPLES and one not in examples:
                examples.append(one)


class Groups:
    """Counts letters by fingerprint. Not thread-safe."""

    def __init__(self, most: int = MAX_GROUPS) -> None:
        self._most = most
        self._groups: dict[Fingerprint, Group] = {}

    def add(self, letter: DeadLetter) -> None:
        """Count *letter* in its group."""
        fingerprint = letter.fingerprint
        if fingerprint not in self._groups and len(self._groups) >= self._most:
            fingerprint = _REST
        self._groups.setdefault(fingerprint, Group(fingerprint)).add(letter)

    @property
    def largest_first(self) -> list[Group]:
        """Every group, the one with the most letters first; what was counted together is last."""
        return sorted(self._groups.values(), key=lambda group: (group.fingerprint is _REST, -group.count, group.id))
