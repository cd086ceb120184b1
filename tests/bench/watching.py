"""What it costs a worker to be watched: the CPU of no-op jobs with metrics, with logs, and with neither.

``python -m tests.bench.watching``; the targets are 10 % for metrics and 2 % for logs at INFO. One worker runs on, and
its watchers change every few thousand jobs: what else the machine does disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import uvloop

from penstock import Events, Handlers, Job, Worker, event_log, health, logs
from penstock.applying import apply
from penstock.connect import broker_for
from penstock.message import Message
from penstock.ports import Outlet
from penstock.readiness import Readiness
from penstock.settings import Settings
from penstock.testing.broker_node import PrivateBroker
from penstock.topology.names import JOBS, work_queue
from penstock.topology.reading import parse_spec
from tests.bench.entrants.penstock_ import ARGS, NOTE, SLOTS, Note

#: Jobs between two changes, and after a change before the clock is read: those that had begun.
BLOCK, SKIPPED = 2_000, 2 * SLOTS
PATIENCE = 300.0
WATCHERS = ("neither", "metrics", "logs", "both")

Costs = dict[str, list[float]]


class Switched(Events):
    """Events that are told to one of several sets of subscribers at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._sets = {"neither": self._subscribers}

    def keep(self, name: str, without: str = "neither") -> None:
        """Call the present subscribers *name*, but for those called *without*."""
        self._sets[name] = tuple(one for one in self._subscribers if one not in self._sets[without])

    def switch(self, name: str) -> None:
        """Tell those called *name* from now on."""
        self._subscribers, self._routes = self._sets[name], {}


@contextlib.asynccontextmanager
async def watchers(events: Switched, worker: Worker, settings: Settings) -> AsyncIterator[None]:
    """Everybody who watches a worker's process, as that process has them."""
    lines = event_log.subscribe(events)
    events.keep("logs")
    async with health.served(settings, events, Readiness(worker.connections, work_queue(worker.queue)), "worker"):
        events.keep("both")
        events.keep("metrics", without="logs")
        yield
    lines.close()


async def fill(outlet: Outlet, count: int) -> None:
    """Put *count* jobs into the queue."""
    body, deadline = NOTE.encode(ARGS), asyncio.get_running_loop().time() + PATIENCE
    now = time.time_ns() // 1_000_000
    for begun in range(0, count, 1000):
        some = range(begun, min(begun + 1000, count))
        jobs = (Message(body, {"penstock-published": now}, f"job-{number}", NOTE.name) for number in some)
        await asyncio.gather(*(outlet.publish(job, JOBS, NOTE.name, deadline) for job in jobs))


async def measure(url: str, rounds: int) -> Costs:
    """Seconds of CPU that a job takes, block by block, *rounds* for each set of watchers."""
    settings = Settings.load(metrics_port=0)
    logs.setup(settings)
    await apply(url, parse_spec("queues: {bench: [bench.*]}"))
    link = await broker_for(url).connect("bench fill")
    await fill(await link.outlet(), BLOCK * rounds * len(WATCHERS) + 1)
    await link.close()
    return await worked(url, rounds, settings)


async def worked(url: str, rounds: int, settings: Settings) -> Costs:
    """Work off what was filled in."""
    events, handlers, last = Switched(), Handlers(), asyncio.Event()
    turns = [WATCHERS[(turn + place) % len(WATCHERS)] for turn in range(rounds) for place in range(len(WATCHERS))]
    found: Costs = defaultdict(list)
    seen, began = -1, 0.0

    @handlers.on(NOTE)
    async def note(_: Job[Note]) -> None:
        nonlocal seen, began
        seen += 1
        turn, place = divmod(seen, BLOCK)
        if place == 0:
            if turn:
                found[turns[turn - 1]].append((time.process_time() - began) / (BLOCK - SKIPPED))
            if turn == len(turns):
                last.set()
                return
            events.switch(turns[turn])
        elif place == SKIPPED:
            began = time.process_time()

    worker = Worker(handlers, queue="bench", slots=SLOTS, events=events)
    async with watchers(events, worker, settings):
        await asyncio.wait_for(worker.run(broker_for(url), stop=last), PATIENCE)
    return found


def table(found: Costs) -> str:
    """Medians, and by how much each is above ``neither`` of its own round."""
    lines = ["| watched by | CPU of a job | more |", "|---|---|---|"]
    for what in WATCHERS:
        more = statistics.median(one / bare - 1 for one, bare in zip(found[what], found["neither"], strict=True))
        lines.append(f"| {what} | {1e6 * statistics.median(found[what]):.1f} µs | {100 * more:+.1f} % |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.watching")
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, PrivateBroker(Path(folder) / "node") as node:
        sys.stdout.write(table(uvloop.run(measure(node.amqp_url, options.rounds))))


if __name__ == "__main__":
    main()
