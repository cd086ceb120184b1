"""Measures how fast the delay cascade moves messages, by hops, and writes the table of docs/delays.md.

    python -m tests.bench.delays --messages 20000 --series 3.10 4.3 --write

A hop is a level queue on the way, one per set bit of the delay. Run it on a quiet machine; 8 hops take at least 255 s.
Short delays are measured three times, the fastest counts: what else the machine does can only slow them down.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from penstock.applying import apply
from penstock.brokers.pika_driver import PikaBroker
from penstock.delay import queue_key
from penstock.message import Message
from penstock.ports import Link, Outlet
from penstock.testing.broker_node import PrivateBroker
from penstock.topology.names import DELAY
from penstock.topology.reading import parse_spec
from tests.bench import page
from tests.bench.machine import machine
from tests.support.brokers import installation

#: The shortest delay of each number of hops.
DELAYS = {1: 1, 2: 3, 3: 7, 8: 255}
BODY = b"x" * 300
WINDOW = 1000
QUEUE = "jobs.email"
PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Measured:
    """One row: *published* and *delivered* are seconds after the first publish until all were."""

    version: str
    hops: int
    delay: int
    messages: int
    published: float
    delivered: float

    @property
    def behind(self) -> float:
        """How long after its due time the last message arrived, if it was published last (seconds)."""
        return self.delivered - self.published - self.delay

    @property
    def rate(self) -> float:
        """Messages a second through the whole way, the wait itself taken off."""
        return self.messages / (self.delivered - self.delay)


async def measure(url: str, version: str, hops: int, messages: int) -> Measured:
    """Publish *messages* at once to come back after the shortest delay of *hops*, and wait until all are there."""
    link = await PikaBroker(url).connect("penstock bench delays")
    try:
        delay = DELAYS[hops]
        start = time.perf_counter()
        await _publish(await link.outlet(), queue_key(delay, QUEUE), messages)
        published = time.perf_counter() - start
        await _arrived(link, messages, delay + PATIENCE)
        return Measured(version, hops, delay, messages, published, time.perf_counter() - start)
    finally:
        await link.close()


async def _publish(outlet: Outlet, key: str, messages: int) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    for begun in range(0, messages, WINDOW):
        window = range(begun, min(begun + WINDOW, messages))
        await asyncio.gather(*(outlet.publish(Message(BODY), DELAY, key, deadline) for _ in window))


async def _arrived(link: Link, messages: int, within: float) -> None:
    async with asyncio.timeout(within):
        while await link.depth(QUEUE) < messages:  # noqa: ASYNC110 - the broker has no word for this to wait for
            await asyncio.sleep(0.05)


async def run(url: str, version: str, hops: int, messages: int) -> Measured:
    """One measurement in a fresh topology of its own broker."""
    await apply(url, parse_spec("queues: {email: [email.*]}"))
    return await measure(url, version, hops, messages)


def rows(series: str, wanted: Sequence[int], messages: int) -> Iterator[Measured]:
    """The best of each row on private brokers of *series*."""
    for hops in wanted:
        tries = 3 if DELAYS[hops] < 60 else 1
        yield min((once(series, hops, messages) for _ in range(tries)), key=lambda measured: measured.delivered)


def once(series: str, hops: int, messages: int) -> Measured:
    """One measurement on a fresh broker: none inherits another's log."""
    with tempfile.TemporaryDirectory() as folder, PrivateBroker(Path(folder), installation(series)) as node:
        measured = asyncio.run(run(node.amqp_url, node.version, hops, messages))
    sys.stderr.write(f"{measured}, {measured.rate:.0f}/s, {measured.behind:.1f} s behind\n")
    return measured


def table(measured: Sequence[Measured]) -> str:
    """The rows as Markdown, with the machine and the day."""
    host = machine()
    lines = [
        f"{measured[0].messages:,} messages of {len(BODY)} bytes at once, persistent and confirmed. Broker and client",
        f"share {host['cores']} cores ({host['processor']}, {host['system']}), {datetime.now(UTC):%Y-%m-%d}:",
        "",
        "| RabbitMQ | delay | hops | all published after | all delivered after | last one late by | moved |",
        "|---|---|---|---|---|---|---|",
        *(_row(row) for row in measured),
    ]
    return "\n".join(lines) + "\n"


def _row(row: Measured) -> str:
    waits = f"{row.delay} s | {row.hops}"
    seconds = f"{row.published:.1f} s | {row.delivered:.1f} s | {row.behind:.1f} s"
    return f"| {row.version} | {waits} | {seconds} | {row.rate:,.0f}/s |"


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.delays")
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--series", nargs="+", default=["3.10", "4.3"], choices=["3.10", "4.0", "4.3"])
    parser.add_argument("--hops", nargs="+", type=int, default=list(DELAYS), choices=list(DELAYS))
    parser.add_argument("--write", action="store_true", help="put the table into docs/delays.md")
    options = parser.parse_args()
    text = table([row for series in options.series for row in rows(series, options.hops, options.messages)])
    sys.stdout.write(text)
    if options.write:
        page.write(page.DOCS / "delays.md", text)


if __name__ == "__main__":
    main()
