"""Measures how fast dead letters are grouped and replayed, and writes the table of docs/dead-letters.md.

    python -m tests.bench.letters --letters 50000 --series 3.10 4.3 --write

The letters are as workers write them: 40 causes, a traceback of 2 KiB, other arguments in each. Run it
on a quiet machine.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from penstock import headers as h
from penstock.applying import apply
from penstock.brokers.pika_driver import PikaBroker
from penstock.dead_letters import DeadLetters
from penstock.letter_groups import Groups
from penstock.message import Message
from penstock.ports import Outlet
from penstock.testing.broker_node import PrivateBroker
from penstock.topology.names import DEAD
from penstock.topology.reading import parse_spec
from tests.bench import page
from tests.bench.machine import machine
from tests.support.brokers import installation

WORK, LETTERS = "jobs.email", "jobs.email.dead"
CAUSES = 40
WINDOW = 1000
PATIENCE = 120.0
_FRAME = '  File "/app/services/mailer/handlers.py", line {line}, in step_{cause}\n    await send(message)\n'


@dataclass(frozen=True, slots=True)
class Measured:
    """One row; *grouped* and *replayed* are seconds, *memory* is MiB that the process grew by while it grouped."""

    version: str
    letters: int
    grouped: float
    memory: float
    replayed: float

    @property
    def rate(self) -> float:
        """Letters replayed a second, from the first look to the last confirm and ack."""
        return self.letters / self.replayed


def letter(number: int) -> Message:
    """The dead letter of a job as a worker writes it."""
    cause = number % CAUSES
    error = f"user {number} at user{number}@example.org: refused in {number % 977} ms"
    headers = {
        h.REASON: "exhausted",
        h.ERROR_TYPE: f"app.Refused{cause}",
        h.ERROR: error,
        h.TRACEBACK: "Traceback (most recent call last):\n" + _FRAME.format(line=number, cause=cause) * 16 + error,
        h.DIED: time.time_ns() // 1_000_000,
        h.ATTEMPT: 4,
        h.COPY: 4,
    }
    body = b'{"user": %d, "to": "user%d@example.org", "template": "welcome"}' % (number, number)
    return Message(body, headers, f"job-{number:08}", "email.send")


async def bury(outlet: Outlet, count: int) -> None:
    """Put *count* letters into the queue."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    for begun in range(0, count, WINDOW):
        window = range(begun, min(begun + WINDOW, count))
        await asyncio.gather(*(outlet.publish(letter(number), DEAD, WORK, deadline) for number in window))


async def measure(url: str, version: str, count: int) -> Measured:
    """Bury *count* letters, group them, replay them."""
    await apply(url, parse_spec("queues: {email: [email.*]}"))
    link = await PikaBroker(url).connect("penstock bench letters")
    await bury(await link.outlet(), count)
    await link.close()
    async with DeadLetters(PikaBroker(url)) as dead:
        before, begun = _memory(), time.perf_counter()
        groups = Groups()
        async with aclosing(dead.look(LETTERS)) as letters:
            async for each in letters:
                groups.add(each)
        grouped, memory = time.perf_counter() - begun, _memory() - before
        assert [group.count for group in groups.largest_first] == [count // CAUSES] * CAUSES
        begun = time.perf_counter()
        result = await dead.replay(LETTERS)
        assert result.done == count, result
        return Measured(version, count, grouped, memory, time.perf_counter() - begun)


def _memory() -> float:
    """The most that this process ever held (MiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rows(series: Sequence[str], count: int) -> Iterator[Measured]:
    """A row for each of *series*, on a broker of its own."""
    for one in series:
        with tempfile.TemporaryDirectory() as folder, PrivateBroker(Path(folder), installation(one)) as node:
            measured = asyncio.run(measure(node.amqp_url, node.version, count))
        sys.stderr.write(f"{measured}, {measured.rate:.0f}/s\n")
        yield measured


def table(measured: Sequence[Measured]) -> str:
    """The rows as Markdown, with the machine and the day."""
    host = machine()
    lines = [
        f"{measured[0].letters:,} letters of {CAUSES} causes, a traceback of about 2 KiB in each. Broker and client",
        f"share {host['cores']} cores ({host['processor']}, {host['system']}), {datetime.now(UTC):%Y-%m-%d}:",
        "",
        "| RabbitMQ | all grouped after | memory grew by | all replayed after | replayed |",
        "|---|---|---|---|---|",
        *(
            f"| {row.version} | {row.grouped:.1f} s | {row.memory:.0f} MiB | {row.replayed:.1f} s | {row.rate:,.0f}/s |"
            for row in measured
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.letters")
    parser.add_argument("--letters", type=int, default=50_000)
    parser.add_argument("--series", nargs="+", default=["3.10", "4.3"], choices=["3.10", "4.0", "4.3"])
    parser.add_argument("--write", action="store_true", help="put the table into docs/dead-letters.md")
    options = parser.parse_args()
    text = table(list(rows(options.series, options.letters)))
    sys.stdout.write(text)
    if options.write:
        page.write(page.DOCS / "dead-letters.md", text)


if __name__ == "__main__":
    main()
