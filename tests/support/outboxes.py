"""Outboxes under test: jobs added and committed, relays inside the test and as real processes, and what came out."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # rows of any statement

import psycopg

from penstock import Event, JobKind, Receipt, outbox
from penstock.claims import StoreUrl
from penstock.connect import broker_for, outbox_for, store_for
from penstock.relay import Relay
from penstock.relaying import Outbox
from tests.support.waiting import eventually
from tests.support.working import foreign, take_all

ROOT = Path(__file__).parents[2]

BACK_ENDS = ("sqlite", "postgresql")


@dataclass
class Mail:
    """The arguments of a job: its number tells its place."""

    n: int
    text: str = ""


MAIL = JobKind("email.send", Mail)
OTHER = JobKind("email.other", Mail)
NOWHERE = JobKind("nowhere.send", Mail)


async def migrated(url: str) -> str:
    """*url*, once its store has its tables."""
    store = store_for(url)
    await store.migrate()
    await store.close()
    return url


def connect(url: str) -> Any:
    """A blocking connection to the store's database as its users make one: sqlite3's or psycopg's."""
    if url.startswith("sqlite"):
        return sqlite3.connect(StoreUrl.parse(url).path, timeout=30)
    return psycopg.connect(url)


def add_all(url: str, kind: JobKind[Mail], numbers: Iterable[int]) -> list[str]:
    """Add a job for each number, in one transaction that commits; their ids."""
    with closing(connect(url)) as connection:
        receipts: list[Receipt] = [outbox.add(connection, kind, Mail(n), id=f"{kind.name}-{n}") for n in numbers]
        connection.commit()
    return [receipt.id for receipt in receipts]


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    """What *statement* finds in the database of the outbox."""
    with closing(connect(url)) as connection:
        found: list[tuple[Any, ...]] = connection.execute(statement).fetchall()
        connection.commit()
    return found


def unpublished(url: str) -> int:
    """How many rows are not marked as published."""
    [(count,)] = rows(url, "SELECT count(*) FROM penstock_outbox WHERE published IS NULL")
    return int(count)


async def came(url: str, queue: str = "jobs.email") -> list[str]:
    """The ids in *queue*, in order; they are taken out."""
    async with foreign(url) as channel:
        return [message.message_id or "" for message in await take_all(channel, queue)]


def firsts(ids: Iterable[str]) -> list[str]:
    """*ids* where each came for the first time."""
    return list(dict.fromkeys(ids))


class Running:
    """A relay inside the test, and what it told."""

    def __init__(self, relay: Relay, box: Outbox) -> None:
        self.box = box
        self.events: list[Event] = []
        relay.events.subscribe(self.events.append)

    def of(self, kind: type) -> list[Any]:
        """The events of one type so far."""
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type, count: int = 1) -> list[Any]:
        """Wait until *count* events of *kind* were seen."""
        await eventually(lambda: len(self.of(kind)) >= count, within=15)
        return self.of(kind)


@asynccontextmanager
async def relaying(url: str, store_url: str, **options: Any) -> AsyncIterator[Running]:
    """A running relay from the outbox at *store_url* to the broker at *url*; it must drain cleanly at the end."""
    box = outbox_for(store_url)
    relay, stop = Relay(box, broker_for(url), **options), asyncio.Event()
    watched = Running(relay, box)
    running = asyncio.create_task(relay.run(stop=stop))
    try:
        yield watched
    except BaseException:
        running.cancel()
        await asyncio.wait([running])
        raise
    stop.set()
    assert await running, "the relay left batches unfinished"


class RelayProcess:
    """``penstock outbox run`` from the outbox at *store_url* to the broker at *url*, with its log in *folder*."""

    def __init__(self, url: str, store_url: str, folder: Path, name: str = "relay", **settings: str) -> None:
        self.log = folder / f"{name}.log"
        environment = {**os.environ, "RABBITMQ_URL": url, "PENSTOCK_STORE_URL": store_url, **settings}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "penstock", "outbox", "run"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    @property
    def stopped(self) -> bool:
        """Whether the process has been stopped in its tracks, by SIGSTOP."""
        return Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def said(self, words: str) -> bool:
        """Whether its log has *words*."""
        return words in self.log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.running:
            self._process.send_signal(number)

    async def ended(self, within: float = 20.0) -> int:
        """Wait for its end; its exit code (negative: the signal that killed it)."""
        return await asyncio.to_thread(self._process.wait, within)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        self.signal(signal.SIGKILL)
        await self.ended()


@asynccontextmanager
async def relay_processes(*starts: Callable[[], RelayProcess]) -> AsyncIterator[list[RelayProcess]]:
    """Relay processes; they are gone after the block, however that ends."""
    running: list[RelayProcess] = []
    try:
        running += [start() for start in starts]
        yield running
    finally:
        for process in running:
            await process.kill()
