"""Where an entrant spends its time: samples its stacks with py-spy, or counts its calls with cProfile."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.lineup import RIVALS_PYTHON, SCRATCH, Entrant

Profiler = Callable[[Entrant, str, list[str]], list[str]]

KINDS = ("stacks", "calls")
HELP = "profile into .penstock/bench: stacks of all threads (py-spy, default) or calls of the main thread (cProfile)"


def of(kind: str | None) -> Profiler:
    """What turns an entrant's command into one that is profiled as *kind* says (None: not at all)."""
    match kind:
        case "stacks":
            return _stacks
        case "calls":
            return _calls
        case _:
            return _plain


def _plain(_entrant: Entrant, _role: str, command: list[str]) -> list[str]:
    return command


def _stacks(entrant: Entrant, role: str, command: list[str]) -> list[str]:
    target = SCRATCH / f"{entrant.who}-{role}.stacks"
    spy = str(RIVALS_PYTHON.with_name("py-spy"))
    return [spy, "record", "--rate", "500", "--threads", "--format", "raw", "--output", str(target), "--", *command]


def _calls(entrant: Entrant, role: str, command: list[str]) -> list[str]:
    return [*command, "--calls", str(SCRATCH / f"{entrant.who}-{role}.calls")]
