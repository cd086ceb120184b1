"""Several processes that play one role: begun together, counted together, timed over the middle of what they do."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import Callable
from ctypes import c_longlong
from mmap import mmap
from pathlib import Path

from tests.bench.entrants.common import LIMIT, Figures

#: Workers are forked, before they have threads or a loop, so that they share what counts them.
_CONTEXT = multiprocessing.get_context("fork")
_LOOK_EVERY = 0.02

#: The variable that names the file in which others may read how many are finished: eight bytes.
COUNT_FILE = "BENCH_COUNT"


class Count:
    """Counts what all processes have finished; the first and the last tenth of *total* are not timed, since not all of
    them may be at work then. The file that ``BENCH_COUNT`` names shows the count to others."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._first, self._last = total // 10, total - total // 10
        self._done = c_longlong.from_buffer(_shared(os.environ.get(COUNT_FILE)))
        self._lock = _CONTEXT.Lock()
        self._seconds = _CONTEXT.Array("d", 2, lock=False)
        self._cpu = _CONTEXT.Value("d", 0.0)

    def tick(self) -> None:
        """Count one that is finished."""
        with self._lock:
            number = self._done.value = self._done.value + 1
        if number == self._first:
            self._seconds[0] = time.perf_counter()
        elif number == self._last:
            self._seconds[1] = time.perf_counter()

    def spent(self, seconds: float) -> None:
        """Add the processor's time that a process took."""
        with self._cpu.get_lock():
            self._cpu.get_obj().value += seconds

    async def complete(self) -> None:
        """Return once all are finished, in whatever process."""
        while self._done.value < self.total:  # noqa: ASYNC110 - other processes have no event to set here
            await asyncio.sleep(_LOOK_EVERY)

    def figures(self) -> Figures:
        """How many a second over the middle eight tenths, and the processor time of all processes for each."""
        begin, end = self._seconds
        return {"rate": (self._last - self._first) / (end - begin), "cpu_us": self._cpu.value * 1e6 / self.total}


def _shared(file: str | None) -> mmap:
    """Eight bytes that are shared with forks of this process, and with those who read *file*."""
    if file is None:
        return mmap(-1, 8)
    with Path(file).open("r+b") as opened:
        return mmap(opened.fileno(), 8)


def together(processes: int, total: int, play: Callable[[Count], None]) -> Figures:
    """Run *play* here and in forks of this process, *processes* in all."""
    count, gate = Count(total), _CONTEXT.Barrier(processes)

    def begin() -> None:
        gate.wait(LIMIT)
        before = time.process_time()
        play(count)
        count.spent(time.process_time() - before)

    others = [_CONTEXT.Process(target=begin, daemon=True) for _ in range(processes - 1)]
    for process in others:
        process.start()
    begin()
    for process in others:
        process.join(LIMIT)
        if process.exitcode != 0:
            raise RuntimeError(f"a process of this role ended with {process.exitcode}")
    return count.figures()
