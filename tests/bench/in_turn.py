"""Lets entrants work in turn, a moment each, so that the moods of a machine meet all of them alike."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.lineup import SCRATCH, Entrant
from tests.bench.processes import LIMIT, EntrantError, Running, started, wait_until

Figures = dict[str, float]

#: What takes part in the turns of a cell: Penstock without a store, the transaction by hand (in one way or several),
#: Penstock with the store, and with a store that is full.
NOOP, HAND, OURS, FULL = "noop", "hand", "ours", "full"

#: At the beginning of a turn what was answered during the others' is taken in; that is not counted (seconds).
_SETTLE = 0.1
#: Shares of the jobs: before the first all of an entrant's processes may not be at work, nor after the last.
_BEGUN, _ENDING = 0.05, 0.95
_FEWEST = 3


@dataclass(frozen=True, slots=True)
class Part:
    """Who takes part, in what role, with how many jobs, and for how many seconds each time."""

    name: str
    entrant: Entrant
    role: str
    total: int
    seconds: float = 0.6


@dataclass(frozen=True, slots=True)
class Lane:
    """A part that has begun: it works only while it is its turn."""

    part: Part
    running: Running
    count: Path

    def done(self) -> int:
        """The jobs that are finished. Raises ``EntrantError`` when the entrant has failed."""
        if self.running.process.poll():
            self.running.answer()
        return int.from_bytes(self.count.read_bytes(), "little")

    def has(self, share: float) -> bool:
        """Whether this *share* of its jobs is finished."""
        return self.done() >= share * self.part.total

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.running.process.pid, number)

    def turn(self) -> float:
        """Let it work for a moment: the jobs a second."""
        self.signal(signal.SIGCONT)
        time.sleep(_SETTLE)
        begin, before = time.perf_counter(), self.done()
        time.sleep(self.part.seconds - _SETTLE)
        end, after = time.perf_counter(), self.done()
        self.signal(signal.SIGSTOP)
        return (after - before) / (end - begin)


def laps(parts: Sequence[Part], url: str) -> list[Figures]:
    """Run *parts* to their ends: each one's jobs a second in every lap. Raises ``EntrantError``."""
    with contextlib.ExitStack() as stack:
        lanes = [stack.enter_context(_begun(part, url)) for part in parts]
        found = list(_laps(lanes))
        for lane in lanes:
            lane.signal(signal.SIGCONT)
        for lane in lanes:
            lane.running.answer()
    if len(found) < _FEWEST:
        raise EntrantError(f"{len(found)} laps: too few jobs for {_FEWEST}")
    return found


def _laps(lanes: Sequence[Lane]) -> Iterator[Figures]:
    end = time.monotonic() + LIMIT / 2  # of the entrants' own, which goes on while they are stopped
    while time.monotonic() < end:
        lap = {lane.part.name: lane.turn() for lane in lanes}
        if any(lane.has(_ENDING) for lane in lanes):
            return
        yield lap


@contextlib.contextmanager
def _begun(part: Part, url: str) -> Iterator[Lane]:
    SCRATCH.mkdir(parents=True, exist_ok=True)
    count = SCRATCH / f"{part.name}.count"
    count.write_bytes(bytes(8))
    entrant = part.entrant.counting(count)
    with started(entrant, entrant.command(part.role, part.total), url, part.role) as running:
        lane = Lane(part, running, count)
        try:
            wait_until(lambda: lane.has(_BEGUN), f"{part.name} at work")
            lane.signal(signal.SIGSTOP)
            yield lane
        finally:
            lane.signal(signal.SIGCONT)  # or it would not hear that it is to end


def overhead(ours: float, idle: float, by_hand: float) -> float:
    """What Penstock adds to a transaction, in per cent of it, from three rates: *ours* with the store, ours without
    a store or anything to do (*idle*), and that of the bare transaction *by_hand*.
    """
    return 100 * ((1 / ours - 1 / idle) * by_hand - 1)


def figures(found: Sequence[Mapping[str, float]]) -> Figures:
    """The medians of laps: the rates, what Penstock adds to the transaction, and what a full store leaves of its rate.

    The fastest way by hand counts.
    """
    rates = {name: statistics.median(lap[name] for lap in found) for name in found[0]}
    hand = max((name for name in rates if name.startswith(HAND)), key=rates.__getitem__)
    answer = {NOOP: rates[NOOP], HAND: rates[hand], OURS: rates[OURS], "laps": float(len(found))}
    answer["overhead"] = statistics.median(overhead(lap[OURS], lap[NOOP], lap[hand]) for lap in found)
    if FULL in rates:
        answer |= {FULL: rates[FULL], "share": statistics.median(lap[FULL] / lap[OURS] for lap in found)}
    return answer
