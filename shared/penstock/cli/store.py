"""``penstock store``: the memory of jobs whose effect happens once, made, looked at and corrected."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any  # facts as JSON

import orjson
import typer

from penstock.claims import Record, UnderWay
from penstock.cli.letter_view import instant
from penstock.cli.storing import AsJson, StoreUrlOption, age, on_store, patiently
from penstock.connect import outbox_for, store_for
from penstock.printable import printable
from penstock.relaying import Backlog
from penstock.settings import Settings
from penstock.storing import Store, StoreStatus, standing

_UNKNOWN = 6

_EXAMPLES = """
\b
Examples:
  penstock store migrate                           make or update the tables; safe to run at every deploy
  penstock store status
  penstock store show 01a209f2-8588-7f54-ae89-1abf246d6430
  penstock store forget 01a209f2-8588-7f54-ae89-1abf246d6430
"""

app = typer.Typer(
    help="Make, look at and correct what is remembered of jobs.",
    epilog=_EXAMPLES,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]


@app.command("migrate")
def migrate_command(store_url: StoreUrlOption = None) -> None:
    """Make the store's schema, or bring it up to date. Safe to run again, and twice at once."""

    async def migrate(settings: Settings) -> tuple[int | None, int]:
        store = store_for(settings.store)
        try:
            return await patiently(store.migrate, settings)
        finally:
            await store.close()

    before, after = on_store(store_url, migrate)
    done = f"schema {after}, nothing to do" if before == after else f"schema {before or 0} -> {after}"
    typer.echo(done)


@app.command("status")
def status_command(store_url: StoreUrlOption = None, as_json: AsJson = False) -> None:
    """Say what the store holds: records by state, the oldest, and the outbox in it."""

    async def look(settings: Settings) -> tuple[str, StoreStatus, list[Backlog] | None]:
        store = store_for(settings.store)
        try:
            status = await patiently(store.status, settings)
        finally:
            await store.close()
        return store.shown, status, await _backlog(settings, status)

    shown, status, backlog = on_store(store_url, look)
    facts = _facts(shown, status, backlog)
    if as_json:
        typer.echo(orjson.dumps(facts).decode())
        return
    for line in _lines(shown, status, backlog):
        typer.echo(line)


@app.command("show")
def show_command(job_id: Id, store_url: StoreUrlOption = None, as_json: AsJson = False) -> None:
    """Show what is remembered of a job, by consumer, with its result. Exit code 6 when it is not known."""

    async def look(settings: Settings) -> list[Record | UnderWay]:
        async with _opened(settings) as store:
            return await standing(store, job_id)

    records = on_store(store_url, look)
    if as_json:
        typer.echo(orjson.dumps([_plain(record) for record in records]).decode())
    elif records:
        typer.echo("\n\n".join(_story(record) for record in records))
    else:
        typer.echo(f"no record of {printable(job_id)}: it never ran with a store, or is forgotten", err=True)
    if not records:
        raise typer.Exit(_UNKNOWN)


@app.command("forget")
def forget_command(job_id: Id, store_url: StoreUrlOption = None) -> None:
    """Forget a job: its next delivery runs, whatever happened before. Exit code 6 when it was not known."""

    async def forget(settings: Settings) -> int:
        async with _opened(settings) as store:
            return await store.forget(job_id)

    count = on_store(store_url, forget)
    typer.echo(f"{count} record{'' if count == 1 else 's'} forgotten")
    if not count:
        raise typer.Exit(_UNKNOWN)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Store]:
    store = store_for(settings.store)
    try:
        await patiently(store.open, settings)
        yield store
    finally:
        await store.close()


async def _backlog(settings: Settings, status: StoreStatus) -> list[Backlog] | None:
    """What waits in the store's outbox; None where it has none."""
    if status.schema != status.newest_schema or settings.store.scheme not in ("sqlite", "postgresql"):
        return None
    outbox = outbox_for(settings.store)
    try:
        await outbox.open()
        return await outbox.backlog()
    finally:
        await outbox.close()


def _facts(shown: str, status: StoreStatus, backlog: Sequence[Backlog] | None) -> dict[str, Any]:
    outbox = None
    if backlog is not None:
        oldest = min((kind.oldest for kind in backlog if kind.oldest is not None), default=None)
        waiting, parked = sum(kind.waiting for kind in backlog), sum(kind.parked for kind in backlog)
        outbox = {"waiting": waiting, "oldest": instant(oldest), "parked": parked}
    return {
        "store": shown,
        "schema": status.schema,
        "newest_schema": status.newest_schema,
        "records": dict(status.records),
        "oldest": instant(status.oldest),
        "outbox": outbox,
    }


def _lines(shown: str, status: StoreStatus, backlog: Sequence[Backlog] | None) -> list[str]:
    if status.schema is None:
        return [f"store    {shown}", "schema   none: run penstock store migrate"]
    newer = "" if status.schema == status.newest_schema else f"; this penstock has {status.newest_schema}"
    now = time.time_ns() // 1_000_000
    counts = ", ".join(f"{count} {state}" for state, count in sorted(status.records.items())) or "none"
    lines = [f"store    {shown}", f"schema   {status.schema}{newer}", f"records  {counts}"]
    if status.oldest is not None:
        lines.append(f"oldest   {instant(status.oldest)} ({age(status.oldest, now)})")
    if backlog is not None:
        oldest = min((kind.oldest for kind in backlog if kind.oldest is not None), default=None)
        waiting, parked = sum(kind.waiting for kind in backlog), sum(kind.parked for kind in backlog)
        since = "" if oldest is None else f", the oldest for {age(oldest, now)}"
        lines.append(f"outbox   {waiting} waiting{since}; {parked} parked")
    return lines


def _plain(record: Record | UnderWay) -> dict[str, Any]:
    return {
        "job_id": record.job_id,
        "consumer": record.consumer,
        "state": str(record.state),
        "copy": record.copy,
        "claimed": instant(record.claimed),
        "until": instant(record.until) if record.state == "running" else None,
        "result": None if record.result is None else orjson.loads(record.result),
    }


def _story(record: Record | UnderWay) -> str:
    facts = _plain(record)
    result = None if record.result is None else record.result.decode()
    lines = {name: result if name == "result" else value for name, value in facts.items()}
    return "\n".join(f"{name:<9}{printable(str(value))}" for name, value in lines.items() if value is not None)
