"""``penstock worker``: one worker process, or the parent of several."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from penstock import logs
from penstock.errors import ConfigError, UsageError
from penstock.settings import Settings
from penstock.worker_process import work

#: What a stopping child may take beyond its drain before its parent kills it.
_GRACE = timedelta(seconds=15)

_LAST_PORT = 65535

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_EXAMPLES = """
\b
Examples:
  penstock worker services.mailer.app:build
  penstock worker services.mailer.app:build --slots 32 --processes 4
  penstock worker shop:build --apply --reload       while developing

\b
The first SIGTERM or Ctrl-C lets running jobs end (PENSTOCK_DRAIN_TIMEOUT, 25 s); the second stops now.
Exit codes: 0 stopped cleanly, 1 jobs left unfinished or a crash, 2 usage or import, 3 broker not reached
(PENSTOCK_CONNECT_TIMEOUT, 30 s), 4 refused, 5 configuration or topology.
"""


@app.command(epilog=_EXAMPLES)
def worker(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:FACTORY", help="The function that builds the worker.", show_default=False)
    ],
    slots: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Jobs at once in each process (what the factory says).")
    ] = None,
    processes: Annotated[int, typer.Option(metavar="N", min=1, max=256, help="Worker processes.")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when a file changes (development).")] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Declare topology and store schema first (development).")
    ] = False,
) -> None:
    """Run the worker that FACTORY builds until it is told to stop."""
    settings = Settings.load(slots=slots)
    logs.setup(settings)
    if settings.production and (reload or apply):
        raise UsageError("--reload and --apply are for development, and PENSTOCK_ENV says production")
    if apply:
        from penstock.cli.declaring import declare  # a worker without --apply loads no second driver

        asyncio.run(declare(settings))
        os.environ["PENSTOCK_STORE_MIGRATE"] = "1"  # for the worker processes, wherever they come to be
        settings = Settings.load(slots=slots)
    raise typer.Exit(_run(target, settings, processes, reload))


def _run(target: str, settings: Settings, processes: int, reload: bool) -> int:
    kill_after = settings.drain_timeout + _GRACE
    if reload:
        from penstock.reloading import Reloader

        # Compiled code is told apart by the source's size and second: a file saved twice within one would be run stale.
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        command = _command(target, settings, processes)
        return asyncio.run(Reloader(command, Path.cwd(), kill_after=kill_after * 2).run())
    if processes > 1:
        from penstock.supervisor import Supervisor

        ports = _metrics_ports(settings, processes)
        command = _command(target, settings)
        return asyncio.run(Supervisor(command, processes, kill_after=kill_after, variables=ports).run())
    return work(target, settings)


def _metrics_ports(settings: Settings, processes: int) -> Callable[[int], Mapping[str, str]]:
    """What tells the worker in each place its own port: the first has the one that was set, the next the one after."""
    first = settings.metrics_port
    if not first:
        return lambda _: {}
    if first + processes - 1 > _LAST_PORT:
        raise ConfigError(f"PENSTOCK_METRICS_PORT: {processes} processes need {processes} ports from {first} on")
    return lambda place: {"PENSTOCK_METRICS_PORT": str(first + place - 1)}


def _command(target: str, settings: Settings, processes: int = 1) -> list[str]:
    """The command line of a child; the environment it inherits says the rest."""
    slots = [] if settings.slots is None else ["--slots", str(settings.slots)]
    more = [] if processes == 1 else ["--processes", str(processes)]
    return [sys.executable, "-m", "penstock", "worker", target, *slots, *more]
