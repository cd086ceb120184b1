"""What is measured: the experiments, how many messages each moves, who takes part, and the figures it yields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from tests.bench.cells import COMPARED, STORES, Cell

RIVALS = ("celery", "dramatiq", "taskiq", "faststream")


CLIENTS, EFFECTS, SCHEDULES = "clients", "effects", "schedules"


class Shape(Enum):
    """How an experiment is carried out."""

    PUBLISH = "publish"
    WORK = "work"
    FILLED = "filled"
    LATENCY = "latency"
    IDLE = "idle"
    TURNS = "turns"
    RELAY = "relay"
    SCHEDULES = "schedules"


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure in the results. *yielded* is its name in an entrant's answer."""

    name: str
    title: str
    unit: str
    yielded: str = "rate"


@dataclass(frozen=True, slots=True)
class Experiment:
    """One way of running entrants; its *name* is the role they play. *count* is messages or jobs, the same for all."""

    name: str
    shape: Shape
    count: int
    who: tuple[str, ...]
    measures: tuple[Measure, ...]
    rounds: int = 3
    rival_rounds: int = 2
    #: The role that publishes the job whose copies are worked off.
    seed: str = "seed"
    #: The store that takes part.
    store: str = ""
    #: What several experiments are chosen by, and filed together with the machine they were measured on.
    group: str = CLIENTS

    @property
    def names(self) -> set[str]:
        """Everything it can be chosen by."""
        return {self.name, self.group, *(measure.name for measure in self.measures)}

    @property
    def profiled(self) -> bool:
        """Whether one process does all that is measured, so that it can be profiled."""
        return self.shape not in (Shape.LATENCY, Shape.IDLE, Shape.SCHEDULES)

    def rounds_of(self, who: str) -> int:
        """How many rounds *who* runs; the figure is the median of them."""
        return self.rival_rounds if who in RIVALS else self.rounds


def _rate(name: str, title: str, yielded: str = "rate") -> Measure:
    return Measure(name, title, "/s", yielded)


def _of_cell(cell: Cell) -> Experiment:
    """The experiment of a cell of `cells`: everything that is compared closely works in turn."""
    measures = [
        _rate(cell.name, cell.title, "ours"),
        _rate(cell.by_hand, f"{cell.title}: by hand", "hand"),
        _rate(cell.noop, f"{cell.title}: no-op, no store", "noop"),
        Measure(cell.overhead, f"{cell.title}: overhead", "%", "overhead"),
    ]
    if cell.flat:
        measures.append(_rate(cell.full.name, cell.full.title, "full"))
        measures.append(Measure(cell.share, f"{cell.full.title}, of the rate without", "×", "share"))
    return Experiment(
        cell.name,
        Shape.TURNS,
        cell.count,
        ("penstock",),
        tuple(measures),
        rounds=1,
        store=cell.store,
        group=EFFECTS,
    )


def _of_relay(store: str) -> Experiment:
    """A relay that empties a filled outbox."""
    name = f"relay_{store}"
    measures = (_rate(name, f"outbox of {STORES[store]} relayed"),)
    return Experiment(name, Shape.RELAY, 30_000, ("penstock",), measures, store=store, group=EFFECTS)


def _about_stores() -> Iterator[Experiment]:
    """Everything about effects once."""
    yield from map(_of_cell, COMPARED)
    yield from map(_of_relay, ("postgres", "sqlite"))


def _of_schedules(name: str, count: int, rounds: int, *measures: Measure) -> Experiment:
    """A scheduler by *count* schedules, or watched for so many ticks."""
    return Experiment(name, Shape.SCHEDULES, count, ("penstock",), measures, rounds=rounds, group=SCHEDULES)


EXPERIMENTS = (
    Experiment(
        "publish_async",
        Shape.PUBLISH,
        20_000,
        ("c", "pika", "penstock", *RIVALS),
        (_rate("publish_async", "publish, pipelined"),),
        rounds=5,
    ),
    Experiment(
        "publish_each",
        Shape.PUBLISH,
        20_000,
        ("penstock",),
        (_rate("publish_each", "publish, 1,000 tasks one by one"),),
    ),
    Experiment(
        "publish_many",
        Shape.PUBLISH,
        20_000,
        ("pika", "penstock"),
        (_rate("publish_many", "publish, pipelined from a thread"),),
        rounds=5,
    ),
    Experiment(
        "publish_1_thread",
        Shape.PUBLISH,
        4_000,
        ("pika", "penstock", "celery", "dramatiq"),
        (_rate("publish_1_thread", "publish, one thread, one by one"),),
    ),
    Experiment(
        "publish_16_threads",
        Shape.PUBLISH,
        8_000,
        ("pika", "penstock", "celery", "dramatiq"),
        (_rate("publish_16_threads", "publish, 16 threads, one by one"),),
    ),
    Experiment(
        "work_async",
        Shape.WORK,
        20_000,
        ("c", "pika", "penstock", *RIVALS),
        (_rate("work_async", "work, jobs on the loop"),),
        rounds=5,
    ),
    Experiment(
        "work_thread",
        Shape.WORK,
        6_000,
        ("penstock", *RIVALS),
        (_rate("work_thread", "work, jobs in threads"),),
        seed="seed_thread",
    ),
    Experiment(
        "latency",
        Shape.LATENCY,
        1_200,
        ("pika", "penstock", *RIVALS),
        (
            Measure("latency_p50_ms", "publish to handler at 200/s, median", "ms", "p50_ms"),
            Measure("latency_p99_ms", "publish to handler at 200/s, 99 %", "ms", "p99_ms"),
        ),
        rounds=3,
    ),
    Experiment(
        "idle",
        Shape.IDLE,
        0,
        ("pika", "penstock", *RIVALS),
        (Measure("idle_mb", "idle worker, PSS", "MB", "pss_mb"),),
        rounds=1,
        rival_rounds=1,
    ),
    Experiment(
        "slots",
        Shape.FILLED,
        4_000,
        ("penstock",),
        (Measure("slots_busy_percent", "16 slots of unequal jobs, busy", "%", "busy_percent"),),
    ),
    Experiment(
        "drain",
        Shape.WORK,
        100_000,
        ("penstock",),
        (
            Measure("drain_first_tenth", "100,000 drained, first tenth", "/s", "first_tenth"),
            Measure("drain_last_tenth", "100,000 drained, last tenth", "/s", "last_tenth"),
            Measure("drain_growth_mb", "memory grown meanwhile", "MB", "growth_mb"),
        ),
        rounds=1,
    ),
    *_about_stores(),
    _of_schedules(
        "schedules_burst",
        10_000,
        3,
        Measure("schedules_burst_s", "10,000 schedules due at once, all published after", "s", "seconds"),
    ),
    _of_schedules(
        "schedules_many",
        100_000,
        1,
        Measure("schedules_start_s", "100,000 schedules, from start to lead", "s", "start_s"),
        Measure("schedules_start_cpu_s", "processor time of that", "s", "start_cpu_s"),
        Measure("schedules_idle_percent", "100,000 schedules that wait, of a core", "%", "idle_percent"),
    ),
    _of_schedules(
        "schedules_late",
        200,
        1,
        Measure("schedules_late_p99_ms", "ticks of every second, late, 99 %", "ms", "p99_ms"),
    ),
    _of_schedules(
        "schedules_reload",
        100_000,
        1,
        Measure("schedules_reload_s", "100,000 schedules, a changed file taken after", "s", "seconds"),
        Measure("schedules_reload_late_ms", "ticks of every second meanwhile, the latest", "ms", "late_ms"),
    ),
    _of_schedules(
        "schedules_handover",
        20,
        1,
        Measure("schedules_handover_ms", "a killed leader followed after, median", "ms", "median_ms"),
        Measure("schedules_handover_most_ms", "the longest of 20", "ms", "most_ms"),
    ),
)

GROUPS = {measure.name: experiment.group for experiment in EXPERIMENTS for measure in experiment.measures}
MEASURES = {measure.name: measure for experiment in EXPERIMENTS for measure in experiment.measures}


def chosen(names: tuple[str, ...]) -> tuple[Experiment, ...]:
    """The experiments called by *names*, their own, their group's or a measure's; all when empty.

    Raises `ValueError` on others.
    """
    known = {name for experiment in EXPERIMENTS for name in experiment.names}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"no measure {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return tuple(experiment for experiment in EXPERIMENTS if not names or experiment.names & set(names))
