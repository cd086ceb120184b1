"""The janitor's jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from penstock import Job, Reject
from penstock.claims import StoreUrl
from penstock.connect import store_for
from penstock.storing import EffectStore, Store
from penstock_jobs.maintenance import PurgeExpired
from services.janitor.folders import Folder
from services.janitor.marks import Marks
from services.janitor.ports import Expiring
from services.janitor.rules import MARKS, Rules, TableRule
from services.janitor.sweeping import Swept, Terms, count, sweep
from services.janitor.tables import Dialect, Table

Answer = dict[str, dict[str, int] | list[str]]

_log = logging.getLogger("services.janitor")


class Janitor:
    """Purges by *rules*, and the marks of the store at *url* after *retention*; for *budget* at a time.

    Holds no state: connections are made for a run and end with it. Safe to share by tasks.
    """

    def __init__(self, rules: Rules, url: StoreUrl, retention: timedelta, budget: timedelta) -> None:
        self._rules = rules
        self._url = url
        self._retention = retention
        self._budget = budget

    async def purge_expired(self, job: Job[PurgeExpired]) -> Answer:
        """Delete what has expired, a batch at a time, each committed by itself; how much of what, and what has more.

        Whatever ends a run, the next one goes on from there. A rule that the database does not fit rejects the job,
        after the others were followed. Raises ``StoreUnavailable``.
        """
        asked, started = job.args, time.monotonic()
        names, older = self._chosen(asked.only), timedelta(days=asked.older_than_days or 0)
        terms = Terms(_instant(job), older, asked.batch, self._budget)
        async with _opened(self._url) as store:
            everything = {name: found for name, found in self._everything(store).items() if name in names}
            swept = await (count if asked.dry_run else sweep)(everything, terms)
        _tell(swept, time.monotonic() - started, dry_run=asked.dry_run)
        if swept.problems:
            raise Reject("; ".join(swept.problems))
        return _answer(swept, dry_run=asked.dry_run)

    def _chosen(self, only: Sequence[str]) -> Sequence[str]:
        unknown = [name for name in only if name not in self._rules.names]
        if unknown:
            raise Reject(f"no rule for {', '.join(unknown)}; there are {', '.join(self._rules.names)}")
        return only or self._rules.names

    def _everything(self, store: Store) -> dict[str, Expiring]:
        found: dict[str, Expiring] = {rule.table: self._table(rule, store) for rule in self._rules.tables}
        found |= {rule.name: Folder(rule) for rule in self._rules.folders}
        return found | {MARKS: Marks(store, self._retention)}

    def _table(self, rule: TableRule, store: Store) -> Table:
        assert isinstance(store, EffectStore), "app.build lets no rules for tables near another store"
        return Table(rule, store, _dialect(self._url.scheme))


def _dialect(scheme: str) -> Dialect:
    if scheme == "sqlite":
        from services.janitor import sqlite_tables

        return sqlite_tables.DIALECT
    from services.janitor import postgres_tables  # its driver may not be there

    return postgres_tables.DIALECT


@asynccontextmanager
async def _opened(url: StoreUrl) -> AsyncIterator[Store]:
    """The store for one run: it comes once a day."""
    store = store_for(url, connections=1)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def _instant(job: Job[PurgeExpired]) -> datetime:
    """By when things must have expired: a clock that is ahead deletes nothing too soon while another one is right."""
    now = datetime.now(UTC)
    published = now.timestamp() if job.published is None else job.published / 1000
    return min(now, datetime.fromtimestamp(min(published, now.timestamp()), UTC), job.args.as_of or now)


def _tell(swept: Swept, seconds: float, *, dry_run: bool) -> None:
    """Log what a run did, a line, and a line for what is wrong."""
    counts = ", ".join(f"{found} of {name}" for name, found in swept.counts.items() if found) or "nothing"
    more = f"; more is left in {', '.join(swept.unfinished)} for the next run" if swept.unfinished else ""
    _log.log(
        logging.WARNING if swept.unfinished else logging.INFO,
        "%s %s in %.1f s%s",
        "would delete" if dry_run else "deleted",
        counts,
        seconds,
        more,
    )
    for problem in swept.problems:
        _log.error("cannot purge: %s", problem)


def _answer(swept: Swept, *, dry_run: bool) -> Answer:
    what = "expired" if dry_run else "deleted"
    return {what: swept.counts, "unfinished": swept.unfinished, "absent": swept.absent}
