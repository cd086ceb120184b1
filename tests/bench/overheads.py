"""What Penstock adds to the same jobs by hand: worked out from what was measured in the same run."""

from __future__ import annotations

from collections.abc import Mapping

from tests.bench.cells import COMPARED

#: measure → who → figure.
Figures = dict[str, dict[str, float]]


def overhead(ours: float, by_hand: float) -> float:
    """How much more time a job takes with Penstock than *by_hand*, in per cent of that, from the two rates."""
    return 100 * (by_hand / ours - 1)


def with_overheads(figures: Mapping[str, Mapping[str, float]]) -> Figures:
    """*figures*, and the overhead of each cell for which they have both rates."""
    found = {measure: dict(by_who) for measure, by_who in figures.items()}
    for cell in COMPARED:
        rates = figures.get(cell.name, {})
        ours, by_hand = rates.get("penstock"), rates.get("hand")
        if ours and by_hand:
            found[cell.overhead] = {"penstock": round(overhead(ours, by_hand), 1)}
    return found
