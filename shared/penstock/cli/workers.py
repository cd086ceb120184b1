"""``penstock workers``: which processes work on what, since when, and with how much in their hands."""

from __future__ import annotations

import time
from dataclasses import asdict

import orjson
import typer
from rich.text import Text

from penstock.cli.letter_view import instant
from penstock.cli.screens import Cell, on_management, screen, table
from penstock.cli.storing import AsJson, age
from penstock.overview.model import WorkerState
from penstock.overview.workers import workers
from penstock.settings import Settings

_NAMES = ("WORKER", "HOST", "PID", "QUEUES", "SLOTS", "PREFETCH", "HELD", "SINCE", "USER", "VERSION", "STATE")
_MEANING = """
\b
SLOTS is how many jobs it works on at once; PREFETCH how many deliveries it takes at most: its slots and a reserve (1
until its first job is done); HELD is how many it has. What consumes a work queue without being Penstock's is shown too,
without slots and version. Takes a login with the tag monitoring in RABBITMQ_MANAGEMENT_URL; another one sees its own
connections only.
"""

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command(epilog=_MEANING)
def workers_command(as_json: AsJson = False) -> None:
    """Show who consumes the work queues, as their connections tell."""
    with on_management(Settings.load()) as management:
        found = workers(management)
    if as_json:
        typer.echo(orjson.dumps([{**asdict(worker), "since": instant(worker.since)} for worker in found]).decode())
        return
    console = screen()
    if not found:
        console.print(Text("no worker is connected", style="bold red"))
        return
    now = time.time_ns() // 1_000_000
    table(console, _NAMES, [_row(worker, now) for worker in found], ("PID", "SLOTS", "PREFETCH", "HELD", "SINCE"))


def _row(worker: WorkerState, now: int) -> list[Cell]:
    return [
        worker.name,
        worker.host,
        "-" if worker.pid is None else str(worker.pid),
        ", ".join(worker.queues) or "-",
        "-" if worker.slots is None else str(worker.slots),
        str(worker.prefetch),
        str(worker.running),
        age(worker.since, now),
        worker.user,
        worker.version or "-",
        Text(", ".join(worker.states), style="bold red") if worker.states else "running",
    ]
