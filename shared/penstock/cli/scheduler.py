"""``penstock scheduler``: publishes what falls due by a schedules file, while it leads."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import structlog
import typer

from penstock import __version__, health, logs
from penstock.brokers.pika_driver import PikaBroker
from penstock.event_log import subscribe
from penstock.events import Events
from penstock.readiness import Readiness
from penstock.scheduler import Scheduler
from penstock.schedules.model import Schedule, utc_text
from penstock.schedules.reading import read_schedules, without_store
from penstock.schedules.watching import Watched
from penstock.schedules.zones import zone
from penstock.settings import Settings

#: A leader that froze or was cut off is given up by the broker after some 13 s.
_HEARTBEAT = timedelta(seconds=5)

_EXAMPLES = """
\b
Examples:
  penstock scheduler schedules.yaml                run as many as you like: one leads, the others stand by
  penstock scheduler schedules.yaml --check        only read the file, and say what comes next

\b
The file is read again when it changes; one that is broken is told of, and the old schedules go on.
"""

_log = structlog.stdlib.get_logger("penstock")

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=_EXAMPLES)
def scheduler(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The schedules.")] = Path("schedules.yaml"),
    check: Annotated[bool, typer.Option("--check", help="Read the file, show the next runs, and end.")] = False,
) -> None:
    """Publish what falls due by FILE, until it is told to stop."""
    settings = Settings.load()
    if check:
        _show(read_schedules(file))
        return
    logs.setup(settings)
    asyncio.run(_run(settings, file))


async def _run(settings: Settings, file: Path) -> None:
    events = Events()
    lines = subscribe(events)
    url = settings.broker_url
    try:
        watched = Watched(file, read_schedules, events)
        role = Scheduler(
            watched,
            PikaBroker(url, heartbeat=_HEARTBEAT),
            connect_timeout=settings.connect_timeout,
            events=events,
        )
        _log.info("scheduling", version=__version__, file=str(file), broker=url.masked)
        for problem in without_store(watched.schedules, str(file)) if settings.store_url is None else ():
            _log.warning(problem)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with health.served(settings, events, Readiness([role.name]), "scheduler"):
            await role.run(stop=stop)
    finally:
        lines.close()
    _log.info("stopped")


def _show(schedules: tuple[Schedule, ...]) -> None:
    now = int(time.time())
    for schedule in schedules:
        state = "" if schedule.enabled else " (disabled)"
        typer.echo(f"{schedule.name}{state}: {schedule.kind}, {schedule.trigger.words}")
        for instant in _next(schedule, now, 3):
            local = zone(schedule.zone).local(instant)
            typer.echo(f"  {local:%Y-%m-%d %H:%M:%S} {schedule.zone}, {utc_text(instant)}")
    typer.echo(f"{len(schedules)} schedules, read at {datetime.now(UTC):%H:%M:%S} UTC")


def _next(schedule: Schedule, now: int, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count and (instant := schedule.after(found[-1] if found else now)) is not None:
        found.append(instant)
    return found
