"""Jobs of which there are few: a pull of the shop's orders, a round of the janitor, pictures and videos."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any  # jobs of two kinds

from penstock import NewJob
from penstock.clock import new_job_id
from penstock_jobs import PURGE_EXPIRED, SYNC_PULL, PurgeExpired, SyncPull
from services.demo import pictures, shop
from services.demo.door import Door

_PULLED = "SELECT count(*) FROM sync_items WHERE source = ?"


@dataclass(slots=True)
class Errands:
    """The errands of a *run*: handed in at a door. What became of pictures is in *pictured*, of pages in *store*; how
    the others ended, the door says."""

    run: str
    store: Path
    pictured: Path
    ids: list[str] = field(default_factory=list)
    _asked: list[str] = field(default_factory=list)
    _done: set[str] = field(default_factory=set)

    async def send(self, door: Door) -> None:
        """Hand them in."""
        jobs: list[NewJob[Any]] = [
            SYNC_PULL.new(SyncPull(source=shop.NAME), id=new_job_id(), correlation_id=self.run),
            PURGE_EXPIRED.new(PurgeExpired(), id=new_job_id(), correlation_id=self.run),
        ]
        self._asked = await door.submit(jobs)
        self.ids += self._asked

    async def send_pictures(self, door: Door) -> None:
        """Hand in what is to be made of the pictures and videos."""
        self.ids += await door.submit(pictures.jobs(self.run))

    async def done(self, door: Door) -> list[str]:
        """Those that are done."""
        for job_id in self._asked:
            if job_id not in self._done and await door.state(job_id) == "done":
                self._done.add(job_id)
        return [*self._done, *pictures.made(self.pictured)]

    def pulled(self) -> int:
        """How many of the shop's items are kept; a pull goes on from page to page by jobs of its own."""
        with closing(sqlite3.connect(f"{self.store.as_uri()}?mode=ro", uri=True)) as file:
            [count] = file.execute(_PULLED, (shop.NAME,)).fetchone()
        return int(count)

    def faults(self) -> list[str]:
        """What is missing of what they are for."""
        pulled = self.pulled()
        return [] if pulled == shop.ITEMS else [f"{pulled} of the shop's {shop.ITEMS} items were pulled"]
