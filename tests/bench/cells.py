"""The ways of having effects once that are measured: how strongly, in which store, by how many slots and processes."""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Marks that a store holds in the cells that show whether the cost of a job stays flat.
MANY = 2_000_000
#: Rows that effects are spread over, so that two of them rarely meet.
ACCOUNTS = 1_000

STORES = {"postgres": "PostgreSQL", "sqlite": "SQLite", "redis": "Redis"}


@dataclass(frozen=True, slots=True)
class Cell:
    """*processes* workers of *slots* slots each, whose jobs do nothing (``noop``, no store), or have an ``effect`` in
    *store*, or a ``lease`` of it; the store holds *marks* already. *count* jobs are worked off.
    """

    strength: str
    store: str
    slots: int
    processes: int
    count: int
    marks: int = 0

    @property
    def name(self) -> str:
        """What the cell's experiment is called."""
        kept = ("full",) if self.marks else ()
        return "_".join((*filter(None, (self.strength, self.store)), f"{self.slots}x{self.processes}", *kept))

    @property
    def what(self) -> str:
        """The strength and the store in words."""
        return f'once="{self.strength}", {STORES[self.store]}' if self.store else "no-op, no store"

    @property
    def title(self) -> str:
        """The cell in words."""
        crowd = f"{self.slots} slots, {self.processes} process{'es' * (self.processes > 1)}"
        return ", ".join((self.what, crowd, *((f"{self.marks:,} marks before",) if self.marks else ())))

    @property
    def idle(self) -> Cell:
        """The cell that does the same without a store."""
        return replace(_NOOP, slots=self.slots, processes=self.processes)

    @property
    def full(self) -> Cell:
        """The cell that does the same beside many marks."""
        return replace(self, marks=MANY)

    @property
    def flat(self) -> bool:
        """Whether it is measured beside many marks, too."""
        return (self.slots, self.processes) == (64, 1) and (self.strength, self.store) != ("lease", "postgres")

    @property
    def overhead(self) -> str:
        """The measure of what Penstock adds to the transaction."""
        return f"overhead_{self.name}"

    @property
    def noop(self) -> str:
        """The measure of the worker without a store, taken beside it."""
        return f"noop_beside_{self.name}"

    @property
    def by_hand(self) -> str:
        """The measure of the transaction written by hand, taken beside it."""
        return f"hand_beside_{self.name}"

    @property
    def share(self) -> str:
        """The measure of what is left of its rate beside many marks."""
        return f"share_{self.full.name}"


_NOOP = Cell("noop", "", 16, 1, 60_000)
_CROWDS = ((16, 1), (64, 1), (16, 2), (64, 2))
_KINDS = (
    ("effect", "postgres", 12_000),
    ("effect", "sqlite", 16_000),
    ("lease", "redis", 30_000),
    ("lease", "postgres", 16_000),
)

NOOPS = tuple(replace(_NOOP, slots=slots, processes=processes) for slots, processes in _CROWDS)
#: Those that have a transaction written by hand beside them.
COMPARED = tuple(
    Cell(strength, store, slots, processes, count) for strength, store, count in _KINDS for slots, processes in _CROWDS
)
#: Those that are measured beside many marks, too.
FLAT = tuple(cell for cell in COMPARED if cell.flat)

CELLS = {cell.name: cell for cell in (*NOOPS, *COMPARED, *(cell.full for cell in FLAT))}
