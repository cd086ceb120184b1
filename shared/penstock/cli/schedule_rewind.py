"""``penstock schedule rewind``: the way back for schedulers that were led by a wrong clock."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from penstock.cli.scheduling import NOT_YET, By, asked, login, now_ms, on_broker, seen, shown_json
from penstock.cli.storing import AsJson
from penstock.cli.values import instant as read_instant
from penstock.errors import UsageError
from penstock.printable import printable
from penstock.schedules.model import utc_text
from penstock.schedules.state import Command, State
from penstock.settings import Settings

#: Clocks further apart than this (seconds) are not both right.
_APART = 60

To = Annotated[
    datetime | None,
    typer.Option(
        "--to",
        parser=read_instant,
        metavar="INSTANT",
        help="Since when ticks are missing, such as 2026-11-01T00:00:00+01:00 (now).",
        show_default=False,
    ),
]


def rewind_command(
    to: To = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; it is logged.")] = "",
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Let ticks come again when a scheduler's clock was ahead, and nothing would come until that time.

    What falls due between the instant and where the schedulers had been comes again, by the same job ids: it has no
    second effect where its handler has a store that remembers it. Pauses stay. A state that is not ahead of the clock
    is left as it is. Exit code 6 when no scheduler has obeyed within 5 s, or the leader's own clock is wrong.
    """
    at = now_ms()
    now = at // 1000
    target = now if to is None else int(to.timestamp())
    if target > now:
        raise UsageError("--to is still to come: ticks are let come again from a past instant on, or from now")
    settings = Settings.load()
    before = on_broker(settings, seen)
    if before is None or before.through <= now + _APART:
        _tell(before, "nothing to rewind: no tick is said to be out that is not due yet", as_json, obeyed=True)
        return
    _check_leader(before, at)
    command = Command("rewind", "", by or login(), at, reason, None if to is None else target)
    obeyed = asked(settings, command, lambda state: state.through <= now + _APART)
    since, until = utc_text(target), utc_text(before.through)
    again = f"ticks come again from {since} on; they were said to be out up to {until}"
    yet = "" if obeyed else "; no scheduler has obeyed yet, the next one that runs will"
    _tell(before, again + yet, as_json, obeyed=obeyed)


def _check_leader(state: State, at: int) -> None:
    """Raise ``UsageError`` where the leader's clock and this one are not both right."""
    ahead = (state.written - at) // 1000
    if ahead > _APART:
        raise UsageError(
            f"by the clock of {printable(state.leader)}, who leads or led last, it is {ahead} s later than here: set"
            " the wrong clock right, or stop that scheduler and start one whose clock is right"
        )


def _tell(before: State | None, text: str, as_json: bool, *, obeyed: bool) -> None:
    if as_json:
        shown_json({"was_through": None if before is None else utc_text(before.through), "obeyed": obeyed})
    else:
        typer.echo(text)
    if not obeyed:
        raise typer.Exit(NOT_YET)
