"""Where an entrant spends its time: samples its stacks with py-spy, or counts its calls with cProfile."""

from __future__ import annotations

import pstats
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from tests.bench.lineup import RIVALS_PYTHON, SCRATCH, Entrant

KINDS = ("stacks", "calls")
HELP = "profile into .penstock/bench: stacks of all threads (py-spy, default) or calls of the main thread (cProfile)"

#: Lines of a summary.
_TOP = 25
_IMPORTING = "<frozen importlib"


@dataclass(frozen=True, slots=True)
class Profiling:
    """Runs an entrant's role under a profiler and sums up what it found."""

    kind: str

    def wrap(self, entrant: Entrant, role: str, command: list[str]) -> list[str]:
        """*command*, profiled."""
        target = str(self.file(entrant, role))
        if self.kind == "calls":
            return [*command, "--calls", target]
        spy = str(RIVALS_PYTHON.with_name("py-spy"))
        return [spy, "record", "--rate", "500", "--threads", "--format", "raw", "--output", target, "--", *command]

    def file(self, entrant: Entrant, role: str) -> Path:
        """Where the profile is."""
        return SCRATCH / f"{entrant.who}-{role}.{self.kind}"

    def summary(self, entrant: Entrant, role: str) -> str:
        """The functions that cost the most by themselves, and the file with the rest."""
        file = self.file(entrant, role)
        summarize: Callable[[Path], str] = _calls if self.kind == "calls" else _stacks
        return f"{summarize(file)}\n{file}"


def _calls(file: Path) -> str:
    out = StringIO()
    pstats.Stats(str(file), stream=out).strip_dirs().sort_stats("tottime").print_stats(_TOP)
    return out.getvalue().strip()


def _stacks(file: Path) -> str:
    return "\n".join(table(file.read_text().splitlines()))


def table(stacks: Iterable[str]) -> Iterable[str]:
    """Sum collapsed *stacks* (``frame;frame;… samples``) by function: share by itself, share with what it calls.

    What was sampled while modules were imported is left out.
    """
    alone: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in stacks:
        path, _, samples = line.rpartition(" ")
        if _IMPORTING in path:
            continue
        functions = [_function(frame) for frame in path.split(";")]
        alone[functions[-1]] += int(samples)
        for function in set(functions):
            within[function] += int(samples)
    total = alone.total() or 1
    yield " self  total  function"
    for function, itself in alone.most_common(_TOP):
        yield f"{itself / total:5.1%}  {within[function] / total:5.1%}  {function}"


def _function(frame: str) -> str:
    """A frame without its line: ``run (asyncio/base_events.py:607)`` → ``run (asyncio/base_events.py)``."""
    name, colon, line = frame.rpartition(":")
    return f"{name})" if colon and line.rstrip(")").isdigit() else frame
