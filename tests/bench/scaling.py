"""What more processes are worth where jobs wait for somebody else: the mailer once, twice and four times at one queue.

``python -m tests.bench.scaling``; the target is 3.5 times the mails a second with four processes. The mail server takes
each mail after a fixed time and is otherwise as fast as it can be; broker, database (PostgreSQL, as durable as
installed), mail server and mailers share the machine, so the last column says how much of it was at work. All mails go
to one domain: with ``--throttle '*=9999/s'`` every one of them asks the database for leave at one and the same row.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop
from pydantic import JsonValue

from penstock import AsyncPublisher
from penstock.applying import apply
from penstock.claims import StoreUrl
from penstock.testing.broker_node import PrivateBroker
from penstock.topology.reading import parse_spec
from penstock_jobs import SEND_EMAIL, SendEmail
from services.mailer.command import migrate
from tests.bench.machine import machine
from tests.bench.stores import Stores
from tests.support.brokers import installation
from tests.support.processes import ROOT
from tests.support.working import empty, foreign

TOPOLOGY = "queues: {email: [email.*]}"
PROCESSES = (1, 2, 4)
PATIENCE = 120.0

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Row:
    """What so many *processes* did: mails a second, CPU seconds of theirs for a mail, and the share of the machine's
    processors that was at work meanwhile, whoever for."""

    processes: int
    rate: float
    cpu: float
    busy: float


class Sink(asyncio.Protocol):
    """A connection to a mail server that takes every mail, *delay* after it has come. *taken*: when, by the clock."""

    def __init__(self, delay: float, taken: list[float]) -> None:
        self._delay = delay
        self._taken = taken
        self._buffer = bytearray()
        self._in_mail = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by its class
        self._transport.write(b"220 sink\r\n")

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self._buffer += data
        ending = b"\r\n.\r\n" if self._in_mail else b"\r\n"
        found = self._buffer.find(ending)
        if found < 0:
            return
        command = bytes(self._buffer[:4]).upper()
        del self._buffer[:]  # a client waits for an answer before it goes on
        if self._in_mail:
            self._in_mail = False
            asyncio.get_running_loop().call_later(self._delay, self._take)
        elif command == b"DATA":
            self._in_mail = True
            self._transport.write(b"354 go on\r\n")
        elif command == b"QUIT":
            self._transport.write(b"221 bye\r\n")
            self._transport.close()
        else:
            self._transport.write(b"250 OK\r\n")

    def _take(self) -> None:
        self._taken.append(time.perf_counter())
        self._transport.write(b"250 taken\r\n")


@asynccontextmanager
async def sink(delay: float) -> AsyncIterator[tuple[int, list[float]]]:
    """A mail server: its port, and when it took each mail."""
    taken: list[float] = []
    server = await asyncio.get_running_loop().create_server(lambda: Sink(delay, taken), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], taken


@contextmanager
def mailers(count: int, folder: Path, settings: Mapping[str, str]) -> Iterator[tuple[list[int], Path]]:
    """So many mailers as processes of their own: their ids, and where they log."""
    log = folder / "mailers.log"
    command = [sys.executable, "-m", "penstock", "worker", "services.mailer.app:build"]
    with log.open("wb") as out:
        processes = [
            subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stdout=out, stderr=out)
            for _ in range(count)
        ]
    try:
        yield [process.pid for process in processes], log
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=30)


async def measure(url: str, place: str, processes: int, options: argparse.Namespace, folder: Path) -> Row:
    """Let so many mailers empty a queue that lasts them for the time asked for."""
    slots, delay = options.slots, options.delay / 1000
    await empty(url, "jobs.email")
    await migrate(StoreUrl.parse(place))
    async with sink(delay) as (port, taken), AsyncPublisher(url) as publisher:
        settings = {
            "RABBITMQ_URL": url,
            "PENSTOCK_STORE_URL": place,
            "MAILER_SMTP_URL": f"smtp://127.0.0.1:{port}",
            "MAILER_SLOTS": str(slots),
            "MAILER_THROTTLE": options.throttle,
        }
        with mailers(processes, folder, settings) as (pids, log):
            await _consuming(url, processes, log)
            await _send(publisher, 4 * slots * processes, taken)  # until each has opened its window and its connections
            begun, cpu, idle = time.perf_counter(), _cpu(pids), _idle()
            await _send(publisher, int(processes * slots / delay * options.seconds), taken)
            lasted, cpu, idle = time.perf_counter() - begun, _cpu(pids) - cpu, _idle() - idle
    mails = [at for at in taken if at >= begun]
    first, last = len(mails) // 10, len(mails) * 9 // 10  # at the end not all of them have something left to do
    busy = 1 - idle / (lasted * (os.cpu_count() or 1))
    return Row(processes, (last - first) / (mails[last] - mails[first]), cpu / len(mails), busy)


async def _send(publisher: AsyncPublisher, count: int, taken: list[float]) -> None:
    """Publish *count* mails and wait until they have come."""
    wanted = len(taken) + count
    args = SendEmail(to="ada@example.org", template="order_confirmation", values=_VALUES)
    await publisher.publish_many([SEND_EMAIL.new(args) for _ in range(count)])
    async with asyncio.timeout(PATIENCE):
        while len(taken) < wanted:  # noqa: ASYNC110 - they come by a callback in this very loop
            await asyncio.sleep(0.05)


_VALUES: dict[str, JsonValue] = {"name": "Ada", "item": "teapot", "quantity": 2, "total": "49.80"}


async def _consuming(url: str, wanted: int, log: Path) -> None:
    until = time.monotonic() + PATIENCE
    async with foreign(url) as channel:
        while (await channel.declare_queue("jobs.email", passive=True)).declaration_result.consumer_count != wanted:
            assert time.monotonic() < until, f"{wanted} mailers do not consume: {_text(log)}"
            await asyncio.sleep(0.1)


def _text(log: Path) -> str:
    return log.read_text()


def _cpu(pids: Sequence[int]) -> float:
    """Processor seconds that these have used."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / _TICKS


def _idle() -> float:
    """Processor seconds in which nobody had anything to do, since the machine was started."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    return (int(fields[4]) + int(fields[5])) / _TICKS


def table(rows: Sequence[Row], options: argparse.Namespace) -> Iterator[str]:
    """The medians as Markdown."""
    found = {
        count: [statistics.median(getattr(row, name) for row in rows if row.processes == count) for name in _COLUMNS]
        for count in PROCESSES
    }
    yield f"{options.slots} slots a process, {options.delay} ms a mail; {options.rounds} rounds, medians.\n"
    yield "| processes | mails/s | of one process | of what the slots allow | CPU of a mail | machine busy |"
    yield "|---|---|---|---|---|---|"
    for count, (rate, cpu, busy) in found.items():
        share = rate / (count * options.slots / options.delay * 1000)
        times = rate / found[1][0]
        yield f"| {count} | {rate:,.0f} | {times:.2f}× | {share:.0%} | {cpu * 1000:.2f} ms | {busy:.0%} |"


_COLUMNS = ("rate", "cpu", "busy")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scaling")
    parser.add_argument("--slots", type=int, default=16, help="of each process (default: the mailer's own)")
    parser.add_argument("--delay", type=int, default=250, help="ms that the mail server takes for a mail")
    parser.add_argument("--seconds", type=int, default=10, help="for which a queue lasts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--throttle", default="", help="what MAILER_THROTTLE says")
    parser.add_argument("--series", default="3.10", choices=["3.10", "4.0", "4.3"])
    options = parser.parse_args()
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory() as name,
        Stores() as stores,
        PrivateBroker(Path(name) / "node", installation(options.series)) as info,
    ):
        asyncio.run(apply(info.amqp_url, parse_spec(TOPOLOGY)))
        where = machine()
        print(f"RabbitMQ {info.version}, load {os.getloadavg()[0]:.1f} on {where['cores']} cores")  # noqa: T201
        for _ in range(options.rounds):
            for count in PROCESSES:
                place = stores.prepared("postgres")
                rows.append(uvloop.run(measure(info.amqp_url, place, count, options, Path(name))))
                print(rows[-1], file=sys.stderr)  # noqa: T201
    print("\n".join(table(rows, options)))  # noqa: T201


if __name__ == "__main__":
    main()
