"""``penstock scheduler`` as its users run it, by files of many schedules: its log and the kernel tell what it took."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.entrants.common import LIMIT, Figures, run_role
from tests.bench.entrants.penstock_ import NOTE, declare

#: Seconds an idle scheduler settles, and is watched: a state is written meanwhile.
_SETTLE, _WATCHED = 5.0, 65.0
#: How often the file of schedules changes.
_RELOADS = 5
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A scheduler that runs."""

    popen: subprocess.Popen[bytes]
    log: Path

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it logged of one sort."""
        with self.log.open() as log:
            return [json.loads(line) for line in log if f'"event":"{event}"' in line]

    def until(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many lines of one sort."""
        end = time.monotonic() + LIMIT
        while len(found := self.lines(event)) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(found)} of {count} lines {event!r}: {self.log.read_text()[-500:]}")
            time.sleep(0.1)
        return found

    def cpu(self) -> float:
        """Seconds of processor time that it took so far."""
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


class Crew:
    """Schedulers by one file, which all end with the block."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "schedules.yaml"
        self._folder = folder
        self._processes: list[Process] = []

    def write(self, schedules: Iterable[str]) -> None:
        """Let the file say *schedules*; it is swapped in one go."""
        fresh = self._folder / "fresh"
        fresh.write_text("schedules:\n" + "".join(f"  {each}\n" for each in schedules))
        fresh.rename(self.file)

    def start(self) -> Process:
        """One more."""
        log = self._folder / f"log{len(self._processes)}"
        with log.open("wb") as stream:
            popen = subprocess.Popen(
                [sys.executable, "-m", "penstock", "scheduler", str(self.file)],
                env={**os.environ, "PENSTOCK_LOG_FORMAT": "json"},
                stderr=stream,
            )
        self._processes.append(Process(popen, log))
        return self._processes[-1]

    def close(self) -> None:
        """End all of them."""
        for process in self._processes:
            process.popen.kill()
            process.popen.wait()


@contextmanager
def crew(schedules: Iterable[str]) -> Iterator[Crew]:
    """Nobody yet, by a file of *schedules*."""
    asyncio.run(declare())
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder, closing(Crew(Path(folder))) as found:
        found.write(schedules)
        yield found


@contextmanager
def scheduling(schedules: Iterable[str]) -> Iterator[Process]:
    """A scheduler by a file of *schedules*, for the length of the block."""
    with crew(schedules) as found:
        yield found.start()


def burst(count: int) -> Figures:
    """*count* schedules that are due at one instant: from it until the last tick is confirmed."""
    with scheduling(_line(number, "every: 1m") for number in range(count)) as process:
        return {"seconds": max(line["late_s"] for line in process.until("tick", count)[:count])}


def many(count: int) -> Figures:
    """*count* schedules, none of them due: starting with them, and waiting."""
    with scheduling(_waiting(count)) as process:
        started = time.monotonic()
        process.until("leading")
        figures = {"start_s": time.monotonic() - started, "start_cpu_s": process.cpu()}
        time.sleep(_SETTLE)
        before = process.cpu()
        time.sleep(_WATCHED)
        return figures | {"idle_percent": 100 * (process.cpu() - before) / _WATCHED}


def late(count: int) -> Figures:
    """One schedule of every second, *count* ticks of it: from their instants to their confirms."""
    with scheduling([_SECONDLY]) as process:
        late = [line["late_s"] for line in process.until("tick", count + 1)[1:]]
        return {"p99_ms": 1000 * _percentile(late)}


def reload(count: int) -> Figures:
    """A file of *count* schedules that changes again and again: how long it takes, and how late ticks are meanwhile."""
    schedules = [_SECONDLY, *_waiting(count)]
    with crew(schedules) as found:
        process = found.start()
        process.until("tick", 3)
        before, began = len(process.lines("tick")), time.monotonic()
        for turn in range(1, _RELOADS + 1):
            found.write([*schedules, _line(count + turn, "every: 1d")])
            process.until("schedules read", 1 + turn)
        seconds = (time.monotonic() - began) / _RELOADS
        late = [line["late_s"] for line in process.lines("tick")[before:]]
        return {"seconds": seconds, "late_ms": 1000 * max(late)}


def handover(count: int) -> Figures:
    """The leader killed *count* times, with two that stand by: from the signal until another says that it leads."""
    taken = []
    with crew([_SECONDLY]) as found:
        leader = found.start()
        leader.until("leading")
        others = [found.start(), found.start()]
        for _ in range(count):
            for other in others:
                other.until("standing by")
            killed = time.time()
            leader.popen.kill()
            leader, led = _successor(others)
            taken.append(led - killed)
            others = [*(other for other in others if other is not leader), found.start()]
    return {"median_ms": 1000 * median(taken), "most_ms": 1000 * max(taken)}


def _successor(others: Sequence[Process]) -> tuple[Process, float]:
    """The one that leads, and since when (seconds since 1970 UTC)."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        for other in others:
            if told := other.lines("leading"):
                return other, datetime.fromisoformat(told[0]["timestamp"]).timestamp()
        time.sleep(0.02)
    raise TimeoutError("nobody leads")


def _percentile(values: Sequence[float]) -> float:
    """The value that 99 % of *values* do not exceed."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1]


def _waiting(count: int) -> Iterator[str]:
    """*count* schedules at 1,440 different times, none of them due for months."""
    month = (datetime.now(UTC).month + 5) % 12 + 1
    return (_line(n, f'cron: "{n % 60} {n // 60 % 24} 1 {month} *"') for n in range(count))


def _line(number: int, when: str) -> str:
    return f's{number:06d}: {{{when}, kind: {NOTE.name}, args: {{customer: {number}, at: "{{{{ fire_time }}}}"}}}}'


_SECONDLY = f"secondly: {{every: 1s, kind: {NOTE.name}, args: {{customer: 0}}}}"

ROLES = {
    "schedules_burst": burst,
    "schedules_many": many,
    "schedules_late": late,
    "schedules_reload": reload,
    "schedules_handover": handover,
}

if __name__ == "__main__":
    run_role(ROLES)
