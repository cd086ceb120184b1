"""What Penstock means to reach, and the pure judgement whether a broker's figures reach it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.bench.cells import COMPARED, FLAT
from tests.bench.measures import MEASURES, RIVALS

#: measure → who → figure.
Figures = Mapping[str, Mapping[str, float]]

US = "penstock"
#: The broker on which multiples of rivals are judged.
RIVALS_JUDGED_ON = "4.3"


@dataclass(frozen=True, slots=True)
class Target:
    """Penstock's figure of *measure* is at least (at most) *bound*, times the figure of *rival* when there is one.

    *rival* is (measure, who). *decides* marks the targets that everything else stands on.
    """

    measure: str
    bound: float
    rival: tuple[str, str] | None = None
    at_most: bool = False
    decides: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a target: the figure or ratio that was reached, beside its bound."""

    target: Target
    value: float
    reached: bool

    def text(self) -> str:
        """The verdict in words, for a table."""
        target, unit = self.target, MEASURES[self.target.measure].unit
        if target.rival is None:
            return f"{number(self.value)} {unit}"
        return f"{self.value:.2f} × {_rival_text(target)}"

    def goal(self) -> str:
        """The bound in words, for a table."""
        target, unit = self.target, MEASURES[self.target.measure].unit
        sign = "≤" if target.at_most else "≥"
        if target.rival is None:
            return f"{sign} {number(target.bound)} {unit}"
        return f"{sign} {target.bound:g} × {_rival_text(target)}" + (" (decides)" if target.decides else "")


TARGETS = (
    Target("publish_async", 0.85, ("publish_async", "pika"), decides=True),
    Target("publish_async", 5, ("publish_async", "faststream")),
    Target("publish_async", 15, ("publish_async", "celery")),
    Target("publish_many", 0.75, ("publish_many", "pika")),
    Target("publish_1_thread", 0.9, ("publish_1_thread", "pika")),
    Target("publish_16_threads", 4, ("publish_1_thread", "pika")),
    Target("work_async", 0.75, ("work_async", "pika"), decides=True),
    Target("work_async", 3.5, ("work_async", "faststream")),
    Target("work_async", 3.5, ("work_async", "dramatiq")),
    Target("work_async", 7, ("work_async", "celery")),
    Target("work_thread", 1, ("work_thread", "dramatiq")),
    Target("slots_busy_percent", 95),
    Target("latency_p50_ms", 1.5, at_most=True),
    Target("latency_p99_ms", 5, at_most=True),
    *(Target("latency_p50_ms", 1, ("latency_p50_ms", rival), at_most=True) for rival in RIVALS),
    *(Target("latency_p99_ms", 1, ("latency_p99_ms", rival), at_most=True) for rival in RIVALS),
    Target("idle_mb", 60, at_most=True),
    Target("drain_last_tenth", 0.9, ("drain_first_tenth", US)),
    Target("drain_last_tenth", 1.1, ("drain_first_tenth", US), at_most=True),
    Target("drain_growth_mb", 5, at_most=True),
    *(Target(cell.overhead, 15, at_most=True) for cell in COMPARED),
    *(Target(cell.share, 0.9) for cell in FLAT),
    Target("relay_postgres", 3000),
    Target("schedules_burst_s", 2, at_most=True),
    Target("schedules_start_s", 5, at_most=True),
    Target("schedules_idle_percent", 1, at_most=True),
    Target("schedules_late_p99_ms", 100, at_most=True),
    Target("schedules_reload_late_ms", 1000, at_most=True),
    Target("schedules_handover_most_ms", 1000, at_most=True),
)


def verdicts(broker: str, figures: Figures) -> Iterator[Verdict]:
    """Judge every target for which *figures* has what it compares; rivals' multiples only where they are judged."""
    for target in TARGETS:
        if _against_a_rival(target) and broker != RIVALS_JUDGED_ON:
            continue
        value = _value(target, figures)
        if value is not None:
            yield Verdict(target, value, value <= target.bound if target.at_most else value >= target.bound)


def ratio(figures: Figures, measure: str, who: str) -> float | None:
    """How many times as much as *who* Penstock did in *measure*, or None when either has no figure."""
    return _value(Target(measure, 0, (measure, who)), figures)


def _value(target: Target, figures: Figures) -> float | None:
    ours = figures.get(target.measure, {}).get(US)
    if ours is None or target.rival is None:
        return ours
    measure, who = target.rival
    theirs = figures.get(measure, {}).get(who)
    return ours / theirs if theirs else None


def _against_a_rival(target: Target) -> bool:
    return target.rival is not None and target.rival[1] in RIVALS


def _rival_text(target: Target) -> str:
    assert target.rival is not None
    measure, who = target.rival
    if who == US:
        return MEASURES[measure].title
    return who if measure == target.measure else f"{who} ({MEASURES[measure].title})"


def number(value: float) -> str:
    """A figure with three digits that mean something, thousands marked."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
