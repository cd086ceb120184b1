"""Who runs: each entrant's program, the environment it runs in, the queue it uses, and its idle worker's command."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from penstock.connect import STORE_VARIABLE
from tests.bench.entrants.crowd import COUNT_FILE

ROOT = Path(__file__).resolve().parents[2]
#: What the benchmark makes for itself: the rivals' environment, logs, profiles, the C program.
SCRATCH = ROOT / ".penstock" / "bench"
RIVALS_PYTHON = ROOT / ".penstock" / "bench-venv" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Entrant:
    """One who runs. *idle* are the arguments to Python that start the worker a user would start;
    *settings* are added to the environment.
    """

    who: str
    module: str
    queue: str
    idle: tuple[str, ...] = ()
    rival: bool = False
    settings: tuple[tuple[str, str], ...] = ()
    #: The program of the roles that have a store, when it is another; that of the roles of a scheduler.
    stored: str = ""
    #: The URL of that store; empty in a role that has none but is played by the same program.
    store: str | None = None
    scheduling: str = ""

    @property
    def python(self) -> str:
        """The interpreter of the environment the entrant belongs to."""
        return str(RIVALS_PYTHON) if self.rival else sys.executable

    def command(self, role: str, count: int) -> list[str]:
        """What to run for *role*."""
        module = self.module if self.store is None else self.stored or self.module
        return [self.python, "-m", module, role, str(count)]

    def with_store(self, url: str) -> Entrant:
        """The same one in a role that has a store."""
        return replace(self, store=url, settings=(*self.settings, (STORE_VARIABLE, url)))

    def on(self, queue: str) -> Entrant:
        """The same one with a queue of its own."""
        return replace(self, queue=f"jobs.{queue}", settings=(*self.settings, ("BENCH_QUEUE", queue)))

    def counting(self, file: Path) -> Entrant:
        """The same one, whose count others may read in *file*."""
        return replace(self, settings=(*self.settings, (COUNT_FILE, str(file))))

    def as_scheduler(self) -> Entrant:
        """The same one in a role of a scheduler."""
        return replace(self, module=self.scheduling)

    def environment(self, url: str) -> dict[str, str]:
        """The environment to run in; the broker's URL is in it."""
        return {**os.environ, **dict(self.settings), "BENCH_URL": url, "RABBITMQ_URL": url, "PYTHONPATH": str(ROOT)}


_E = "tests.bench.entrants."

#: Not measured by itself: it takes part in the turns of others.
HAND = Entrant("hand", _E + "hand", "bench.hand")

ENTRANTS = {
    entrant.who: entrant
    for entrant in (
        Entrant(
            "penstock",
            _E + "penstock_",
            "jobs.bench",
            idle=(str(Path(sys.executable).with_name("penstock")), "worker", _E + "penstock_:build"),
            settings=(("PENSTOCK_TOPOLOGY", str(Path(__file__).with_name("topology.yaml"))),),
            stored=_E + "penstock_stores",
            scheduling=_E + "penstock_schedules",
        ),
        Entrant("pika", _E + "pika_bare", "bench.pika", idle=("-m", _E + "pika_bare", "latency_worker", "1000000000")),
        Entrant("c", _E + "c_ceiling", "bench.c"),
        Entrant(
            "celery",
            _E + "celery_",
            "bench.celery",
            idle=("-m", "celery", "-A", _E + "celery_", "worker", "--pool=solo", "--loglevel=ERROR"),
            rival=True,
        ),
        Entrant(
            "dramatiq",
            _E + "dramatiq_",
            "bench.dramatiq",
            idle=("-m", "dramatiq", _E + "dramatiq_", "--processes", "1", "--threads", "8"),
            rival=True,
            settings=(("dramatiq_queue_prefetch", "256"),),
        ),
        Entrant(
            "taskiq",
            _E + "taskiq_",
            "bench.taskiq",
            idle=("-m", "taskiq", "worker", _E + "taskiq_:broker", "--workers", "1"),
            rival=True,
        ),
        Entrant(
            "faststream",
            _E + "faststream_",
            "bench.faststream",
            idle=("-m", "faststream", "run", _E + "faststream_:idle", "--factory"),
            rival=True,
        ),
    )
}
