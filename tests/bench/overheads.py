"""What Penstock adds to a transaction that is written by hand: worked out from what was measured in the same run."""

from __future__ import annotations

from collections.abc import Mapping

from tests.bench.cells import COMPARED

#: measure → who → figure.
Figures = dict[str, dict[str, float]]


def overhead(ours: float, idle: float, by_hand: float) -> float:
    """What Penstock adds to a transaction, in per cent of it, from three rates: *ours* with the store, ours without
    a store or anything to do (*idle*), and that of the bare transaction *by_hand*.
    """
    return 100 * ((1 / ours - 1 / idle) * by_hand - 1)


def with_overheads(figures: Mapping[str, Mapping[str, float]]) -> Figures:
    """*figures*, and the overhead of each cell for which they have all three rates."""
    found = {measure: dict(by_who) for measure, by_who in figures.items()}
    for cell in COMPARED:
        rates = (
            figures.get(cell.name, {}).get("penstock"),
            figures.get(cell.idle.name, {}).get("penstock"),
            figures.get(cell.name, {}).get("hand"),
        )
        if all(rates):
            ours, idle, by_hand = (rate or 0.0 for rate in rates)
            found[cell.overhead] = {"penstock": round(overhead(ours, idle, by_hand), 1)}
    return found
