"""``penstock scheduler`` as its users run it, by files of many schedules: its log and the kernel tell what it took."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.bench.entrants.common import LIMIT, Figures, run_role
from tests.bench.entrants.penstock_ import NOTE, declare

#: Seconds an idle scheduler settles, and is watched: a state is written meanwhile.
_SETTLE, _WATCHED = 5.0, 65.0
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Process:
    """A scheduler that runs."""

    pid: int
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
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


@contextmanager
def scheduling(schedules: Iterable[str]) -> Iterator[Process]:
    """A scheduler by a file of *schedules*, for the length of the block."""
    asyncio.run(declare())
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        file, log = Path(folder, "schedules.yaml"), Path(folder, "log")
        file.write_text("schedules:\n" + "".join(f"  {each}\n" for each in schedules))
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "penstock", "scheduler", str(file)],
                env={**os.environ, "PENSTOCK_LOG_FORMAT": "json"},
                stderr=stream,
            )
        try:
            yield Process(process.pid, log)
        finally:
            process.kill()
            process.wait()


def burst(count: int) -> Figures:
    """*count* schedules that are due at one instant: from it until the last tick is confirmed."""
    with scheduling(_line(number, "every: 1m") for number in range(count)) as process:
        return {"seconds": max(line["late_s"] for line in process.until("tick", count)[:count])}


def many(count: int) -> Figures:
    """*count* schedules at 1,440 different times, none of them due: starting with them, and waiting."""
    month = (datetime.now(UTC).month + 5) % 12 + 1
    schedules = (_line(n, f'cron: "{n % 60} {n // 60 % 24} 1 {month} *"') for n in range(count))
    with scheduling(schedules) as process:
        started = time.monotonic()
        process.until("leading")
        figures = {"start_s": time.monotonic() - started, "start_cpu_s": process.cpu()}
        time.sleep(_SETTLE)
        before = process.cpu()
        time.sleep(_WATCHED)
        return figures | {"idle_percent": 100 * (process.cpu() - before) / _WATCHED}


def late(count: int) -> Figures:
    """One schedule of every second, *count* ticks of it: from their instants to their confirms."""
    with scheduling([_line(0, "every: 1s")]) as process:
        process.until("tick", count + 1)
        late = sorted(line["late_s"] for line in process.lines("tick")[1:])
    return {"p99_ms": 1000 * late[min(len(late) - 1, int(0.99 * len(late)))]}


def _line(number: int, when: str) -> str:
    return f's{number:06d}: {{{when}, kind: {NOTE.name}, args: {{customer: {number}, at: "{{{{ fire_time }}}}"}}}}'


ROLES = {"schedules_burst": burst, "schedules_many": many, "schedules_late": late}

if __name__ == "__main__":
    run_role(ROLES)
