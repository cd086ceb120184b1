"""``penstock outbox``: relays that publish what waits in an outbox, and a look at what does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import orjson
import structlog
import typer

from penstock import __version__, health, logs, telemetry
from penstock.cli.letter_view import instant
from penstock.cli.storing import AsJson, StoreUrlOption, age, on_store, patiently, show_columns
from penstock.connect import broker_for, outbox_for
from penstock.event_log import subscribe
from penstock.printable import printable
from penstock.readiness import Readiness
from penstock.relay import LANES, Relay
from penstock.relaying import Backlog, Outbox, Parked
from penstock.serving import loop_factory, obey_signals
from penstock.settings import Settings

_UNKNOWN = 6
_UNFINISHED = 1

#: Parked jobs listed, the oldest first.
_LISTED = 100

_EXAMPLES = """
\b
Examples:
  penstock outbox run                              until Ctrl-C; run as many as you like
  penstock outbox status
  penstock outbox retry                            let parked jobs be tried again
"""

_log = structlog.stdlib.get_logger("penstock")

app = typer.Typer(
    help="Publish what waits in an outbox, and look at it.",
    epilog=_EXAMPLES,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)


@app.command("run")
def run_command(
    store_url: StoreUrlOption = None,
    lanes: Annotated[int, typer.Option("--lanes", metavar="N", min=1, max=64, help="Kinds at once.")] = LANES,
) -> None:
    """Publish what waits in the outbox, for as long as it runs.

    The first SIGTERM or Ctrl-C lets the batches under way end (PENSTOCK_DRAIN_TIMEOUT, 25 s); the second stops now,
    and what was not marked is published again.
    """
    settings = Settings.load(store_url=store_url)
    logs.setup(settings)
    telemetry.setup("outbox-relay")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        clean = runner.run(_run(settings, lanes))
    raise typer.Exit(0 if clean else _UNFINISHED)


@app.command("status")
def status_command(store_url: StoreUrlOption = None, as_json: AsJson = False) -> None:
    """Say what waits, by kind, for how long, and what is parked and why."""

    async def look(settings: Settings) -> tuple[list[Backlog], list[Parked]]:
        async with _opened(settings) as outbox:
            return await outbox.backlog(), await outbox.parked(_LISTED)

    backlog, parked = on_store(store_url, look)
    if as_json:
        typer.echo(_json(backlog, parked))
        return
    now = time.time_ns() // 1_000_000
    rows = [(str(kind.waiting), age(kind.oldest, now), str(kind.parked), printable(kind.kind)) for kind in backlog]
    if rows:
        show_columns(("waiting", "oldest", "parked", "kind"), rows)
    waiting, stuck = sum(kind.waiting for kind in backlog), sum(kind.parked for kind in backlog)
    typer.echo(f"{waiting} waiting, {stuck} parked")
    if parked:
        reasons = [(age(job.added, now), *map(printable, (job.kind, job.job_id, job.reason))) for job in parked]
        show_columns(("added", "kind", "id", "reason"), reasons)


@app.command("retry")
def retry_command(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Their ids; all of them if none.")] = None,
    store_url: StoreUrlOption = None,
) -> None:
    """Let parked jobs be tried again, after what kept them was mended. Exit code 6 when one was not parked."""

    async def retry(settings: Settings) -> list[str]:
        async with _opened(settings) as outbox:
            return await outbox.retry(ids or None)

    found = on_store(store_url, retry)
    typer.echo(f"{len(found)} jobs wait again")
    missing = [job_id for job_id in ids or () if job_id not in found]
    for job_id in missing:
        typer.echo(f"  {printable(job_id)} was not parked")
    if missing:
        raise typer.Exit(_UNKNOWN)


async def _run(settings: Settings, lanes: int) -> bool:
    outbox = outbox_for(settings.store, connections=lanes)
    url = settings.broker_url
    relay = Relay(outbox, broker_for(url), lanes=lanes, connect_timeout=settings.connect_timeout)
    lines = subscribe(relay.events)
    _log.info("relaying", version=__version__, store=outbox.shown, broker=url.masked)
    stop = asyncio.Event()
    try:
        async with health.served(settings, relay.events, Readiness([relay.name]), "relay"):
            running = asyncio.create_task(relay.run(stop=stop, drain_timeout=settings.drain_timeout))
            obey_signals(stop, running)
            await asyncio.wait([running])
    finally:
        lines.close()
    clean = not running.cancelled() and running.result()
    _log.info("stopped", clean=clean)
    return clean


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Outbox]:
    outbox = outbox_for(settings.store)
    try:
        await patiently(outbox.open, settings)
        yield outbox
    finally:
        await outbox.close()


def _json(backlog: list[Backlog], parked: list[Parked]) -> str:
    kinds = [
        {"kind": kind.kind, "waiting": kind.waiting, "oldest": instant(kind.oldest), "parked": kind.parked}
        for kind in backlog
    ]
    jobs = [{"id": job.job_id, "kind": job.kind, "reason": job.reason, "added": instant(job.added)} for job in parked]
    return orjson.dumps({"kinds": kinds, "parked": jobs}).decode()
