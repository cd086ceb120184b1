"""``penstock scheduler``: publishes what falls due by a schedules file, while it leads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog
import typer

from penstock import __version__, health, logs, telemetry
from penstock.brokers.pika_driver import PikaBroker
from penstock.event_log import subscribe
from penstock.events import Events
from penstock.readiness import Readiness
from penstock.scheduler import Scheduler
from penstock.schedules.checking import needs_store
from penstock.schedules.model import Schedule
from penstock.schedules.reading import read_schedules
from penstock.schedules.watching import Watched
from penstock.serving import loop_factory, obey_signals
from penstock.settings import Settings

#: A leader that froze or was cut off is given up by the broker after some 13 s.
_HEARTBEAT = timedelta(seconds=5)
_UNFINISHED = 1

_EXAMPLES = """
\b
Examples:
  penstock scheduler schedules.yaml                run as many as you like: one leads, the others stand by

\b
The file is read again when it changes; one that is broken is told of, and the old schedules go on. Try it first with
penstock schedule check FILE.
"""

_log = structlog.stdlib.get_logger("penstock")

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=_EXAMPLES)
def scheduler(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The schedules.")] = Path("schedules.yaml"),
) -> None:
    """Publish what falls due by FILE, until it is told to stop."""
    settings = Settings.load()
    logs.setup(settings)
    telemetry.setup("scheduler")
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        clean = runner.run(_run(settings, file))
    raise typer.Exit(0 if clean else _UNFINISHED)


async def _run(settings: Settings, file: Path) -> bool:
    """Serve until a signal; whether it ended by itself after the first one."""
    events, stop, url = Events(), asyncio.Event(), settings.broker_url
    lines = subscribe(events)
    try:
        watched = Watched(file, partial(_usable, settings), events)
        role = Scheduler(
            watched, PikaBroker(url, heartbeat=_HEARTBEAT), connect_timeout=settings.connect_timeout, events=events
        )
        _log.info("scheduling", version=__version__, file=str(file), broker=url.masked)
        async with health.served(settings, events, Readiness([role.name]), "scheduler"):
            watched.tell()
            running = asyncio.create_task(role.run(stop=stop))
            obey_signals(stop, running)
            await asyncio.wait([running])
    finally:
        lines.close()
    clean = not running.cancelled()
    if clean:
        running.result()
    _log.info("stopped", clean=clean)
    return clean


def _usable(settings: Settings, file: Path) -> Sequence[Schedule]:
    """The schedules of *file*. Raises ``ConfigError`` also for what needs a store where none is named."""
    return read_schedules(file, *([needs_store] if settings.store_url is None else []))
