"""The results of a run: figures gathered round by round, their medians, and the file they are kept in."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.measures import MEASURES, Experiment

FILE = Path(__file__).with_name("results.json")

#: measure → who → figure
Figures = dict[str, dict[str, float]]


@dataclass(slots=True)
class Gathered:
    """Every round's figures of one broker."""

    _rounds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, experiment: Experiment, who: str, answer: Mapping[str, float]) -> None:
        """Keep what *who* answered in one round of *experiment*."""
        for measure in experiment.measures:
            if measure.yielded in answer:  # one who is profiled plays a part of it only
                self._rounds[measure.name, who].append(answer[measure.yielded])

    def medians(self) -> Figures:
        """The median of the rounds, rounded to what a measurement is worth."""
        figures: Figures = defaultdict(dict)
        for (measure, who), values in self._rounds.items():
            figures[measure][who] = rounded(statistics.median(values))
        return dict(figures)


def rounded(value: float) -> float:
    """Whole numbers from 100, else three digits."""
    return round(value) if abs(value) >= 100 else float(f"{value:.3g}")


def document(settings: Sequence[Mapping[str, Any]], brokers: Mapping[str, Figures]) -> dict[str, Any]:
    """The results as they are written down."""
    return {"settings": list(settings), "brokers": dict(brokers)}


def setting(groups: Iterable[str], machine: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, Any]:
    """Where and with what the measures of *groups* were taken."""
    return {"groups": sorted(groups), "machine": dict(machine), "versions": dict(versions)}


def merged(old: Mapping[str, Any], new: Mapping[str, Figures], taken: Mapping[str, Any]) -> dict[str, Any]:
    """*old* results with the *new* figures, by broker, which were *taken* in the last setting. What is no measure any
    more is left out."""
    left = [{**each, "groups": sorted({*each["groups"]} - {*taken["groups"]})} for each in old["settings"]]
    brokers = {
        series: {
            name: figure
            for name, figure in {**old["brokers"].get(series, {}), **new.get(series, {})}.items()
            if name in MEASURES
        }
        for series in sorted({*old["brokers"], *new})
    }
    return document([*(each for each in left if each["groups"]), taken], brokers)


def save(results: Mapping[str, Any], file: Path = FILE) -> None:
    """Write *results* to *file*."""
    file.write_text(json.dumps(results, indent=2) + "\n")


def load(file: Path = FILE) -> dict[str, Any]:
    """Read what `save` wrote."""
    results: dict[str, Any] = json.loads(file.read_text())
    return results
