"""``penstock schedule``: what comes by the clock and what came, pausing, ticks out of turn and those of a past time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated

import typer

from penstock.cli.schedule_backfill import backfill_command
from penstock.cli.schedule_check import check_command
from penstock.cli.schedule_list import list_command
from penstock.cli.schedule_rewind import rewind_command
from penstock.cli.scheduling import (
    FILE,
    NOT_YET,
    By,
    File,
    Name,
    asked,
    both,
    deadline,
    local_text,
    login,
    named,
    now_ms,
    on_broker,
    require,
    seen,
    shown_json,
)
from penstock.cli.storing import AsJson, show_columns
from penstock.clock import SystemClock
from penstock.message import MAX_BODY
from penstock.publishing import Packer
from penstock.reconnecting import Reconnecting
from penstock.schedules.model import utc_text
from penstock.schedules.reading import read_schedules
from penstock.schedules.state import Command, State
from penstock.schedules.ticks import asked_for, tick_headers
from penstock.sending import Sender
from penstock.settings import Settings

_DONE = {"pause": "paused", "resume": "resumed"}

_EXAMPLES = """
\b
Examples:
  penstock schedule check schedules.yaml           every mistake with its line, or what comes next
  penstock schedule list                           what came last, what comes next, what is paused
  penstock schedule next purge --count 20
  penstock schedule pause purge --reason "the disk is being moved"
  penstock schedule run purge                      now, out of turn
  penstock schedule backfill purge --from 2026-11-01T00:00:00Z --to 2026-11-07T23:59:59Z --dry-run
  penstock schedule rewind --to 2026-11-29T08:00:00Z    after a scheduler's clock was ahead
"""

app = typer.Typer(
    help="Check schedules, look at them, pause them, run one now, make up for a past time.",
    epilog=_EXAMPLES,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)

app.command("check")(check_command)
app.command("list")(list_command)


@app.command("next")
def next_command(
    name: Name,
    file: File = FILE,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=1000, help="How many.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show when a schedule is due next, in its zone and in UTC."""
    schedule = named(file, name)
    instants = schedule.following(int(time.time()), count)
    if as_json:
        shown_json({"schedule": name, "zone": schedule.zone, "next": [both(schedule, each) for each in instants]})
        return
    rows = [(local_text(schedule, each), schedule.zone, utc_text(each)) for each in instants]
    show_columns(("local", "zone", "UTC"), rows)
    if not rows:
        typer.echo(f"{name} is never due again")


@app.command("pause")
def pause_command(
    name: Name,
    file: File = FILE,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is shown to others.")] = "",
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Let a schedule tick no more until it is resumed. Exit code 6 when no scheduler has obeyed within 5 s."""
    named(file, name)
    command = Command("pause", name, by or login(), now_ms(), reason)
    _ask(command, lambda state: name in state.paused and state.paused[name].at == command.at, as_json)


@app.command("resume")
def resume_command(name: Name, file: File = FILE, by: By = None, as_json: AsJson = False) -> None:
    """Let a schedule tick again; what fell due meanwhile is not made up for. Exit code 6 as for pause.

    A paused one that is not in FILE any more can be resumed too.
    """
    state = on_broker(Settings.load(), seen)
    if state is None or name not in state.paused:
        paused = set(state.paused) if state is not None else set()
        require((name,), paused.union(schedule.name for schedule in read_schedules(file)), file)
    _ask(Command("resume", name, by or login(), now_ms()), lambda state: name not in state.paused, as_json)


@app.command("run")
def run_command(name: Name, file: File = FILE, as_json: AsJson = False) -> None:
    """Publish a schedule's job now, out of turn, also while it is paused; print its id."""
    schedule = named(file, name)
    new = asked_for(schedule, int(time.time()))
    new.id = f"{new.id}:by-hand"
    outgoing = Packer(SystemClock(), "penstock-schedule", MAX_BODY, None).pack(new)
    outgoing.message.headers |= tick_headers(schedule)

    async def publish(links: Reconnecting) -> None:
        await Sender(links).send(outgoing.message, outgoing.exchange, outgoing.key, deadline())

    on_broker(Settings.load(), publish)
    if as_json:
        shown_json({"schedule": name, "kind": schedule.kind, "id": outgoing.receipt.id})
    else:
        typer.echo(outgoing.receipt.id)


app.command("backfill")(backfill_command)
app.command("rewind")(rewind_command)


def _ask(command: Command, obeyed: Callable[[State], bool], as_json: bool) -> None:
    """Ask the schedulers, and wait until one has obeyed. Ends with code 6 when none has."""
    done, done_now = _DONE[command.command], asked(Settings.load(), command, obeyed)
    if as_json:
        facts = {"schedule": command.name, "asked": command.command, "by": command.by, "reason": command.reason}
        shown_json({**facts, "obeyed": done_now})
    elif done_now:
        typer.echo(f"{command.name} is {done}")
    else:
        typer.echo(f"{command.name} will be {done} as soon as a scheduler runs: none has obeyed yet")
    if not done_now:
        raise typer.Exit(NOT_YET)
