"""Runs entrants as processes of their own, waits for their answer, and leaves none behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.lineup import ROOT, SCRATCH, Entrant

#: Seconds before an entrant is given up.
LIMIT = 240.0
_STOPPING = 15.0


class EntrantError(RuntimeError):
    """An entrant failed or took too long; the message says where its log is."""


@dataclass(frozen=True, slots=True)
class Running:
    """An entrant's process, in a session of its own."""

    process: subprocess.Popen[str]
    log: Path

    def answer(self, limit: float = LIMIT) -> dict[str, float]:
        """Wait for the end and give the figures it printed. Raises `EntrantError`."""
        try:
            output, _ = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired as error:
            raise EntrantError(f"no answer within {limit:.0f} s, see {self.log}") from error
        if self.process.returncode:
            raise EntrantError(f"exit code {self.process.returncode}, see {self.log}: {_last_line(self.log)}")
        answers = [line for line in output.splitlines() if line.startswith("{")]  # a profiler may speak after it
        if not answers:
            raise EntrantError(f"no figures, see {self.log}: {_last_line(self.log)}")
        figures: dict[str, float] = json.loads(answers[-1])
        return figures

    def pss_mb(self) -> float:
        """The proportional set size of the process and all it started, in MB (10^6 bytes)."""
        return sum(_pss_kib(pid) for pid in _session(self.process.pid)) * 1024 / 1e6


@contextlib.contextmanager
def started(entrant: Entrant, command: list[str], url: str, note: str) -> Iterator[Running]:
    """Start *command* for *entrant*; at the end whatever is left of it is stopped."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    log = SCRATCH / f"{entrant.who}-{note}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=entrant.environment(url),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    try:
        yield Running(process, log)
    finally:
        _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_STOPPING)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_until(condition: Callable[[], bool], wanted: str, limit: float = 30.0) -> None:
    """Poll *condition* until it holds. Raises `EntrantError` after *limit* seconds, naming what was *wanted*."""
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise EntrantError(f"wanted within {limit:.0f} s: {wanted}")
        time.sleep(0.05)


def _session(leader: int) -> list[int]:
    """The processes of the session that *leader* leads."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, PermissionError):
            if os.getsid(int(entry.name)) == leader:
                members.append(int(entry.name))
    return members


def _pss_kib(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "(nothing)"
