"""``penstock schedule check``: everything that can be known of a schedules file before it counts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any  # facts as JSON

import typer

from penstock.cli.catalogue import CATALOGUE, read_catalogue, there_is_one
from penstock.cli.scheduling import FILE, both, local_text, shown_json
from penstock.cli.storing import AsJson
from penstock.errors import ConfigError
from penstock.schedules.checking import Check, fits, needs_store, sendable, taken
from penstock.schedules.model import Schedule, utc_text
from penstock.schedules.reading import read_schedules
from penstock.settings import Settings
from penstock.topology.reading import DEFAULT_FILE, read_spec

#: Runs that are shown of each schedule.
_SHOWN = 3


def check_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The schedules.")] = FILE,
    catalogue: Annotated[
        str | None, typer.Option("--catalogue", metavar="MODULE:NAME", help=f"The kinds ({CATALOGUE} if it is there).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Read FILE as a scheduler would, and look further: is every kind in the catalogue, does it take the arguments, is
    there a queue for it in the topology (PENSTOCK_TOPOLOGY)? Exit code 5 with a line for each mistake, else the next
    runs."""
    settings = Settings.load()
    now = int(time.time())
    checks, by, without = _checks(settings, catalogue, now)
    try:
        schedules = read_schedules(file, *checks)
    except ConfigError as error:
        if as_json:
            shown_json(_facts(file, (), now, error.problems, without))
        raise
    if as_json:
        shown_json(_facts(file, schedules, now, (), without))
        return
    for schedule in schedules:
        _show(schedule, now)
    fine = "1 schedule is fine" if len(schedules) == 1 else f"{len(schedules)} schedules are fine"
    typer.echo(fine + (f", by {' and '.join(by)}" if by else ""))
    for line in without:
        typer.echo(line)


def _checks(settings: Settings, catalogue: str | None, now: int) -> tuple[list[Check], list[str], list[str]]:
    """What the schedules have to pass, by what that is known, and what cannot be known."""
    checks: list[Check] = [sendable(now)]
    by, without = [], []
    if settings.store_url is None:
        checks.append(needs_store)
    if catalogue is not None or there_is_one():
        named = catalogue or CATALOGUE
        checks.append(fits(read_catalogue(named), named, now))
        by.append(named)
    else:
        without.append(f"kinds and arguments are not checked: there is no {CATALOGUE}; --catalogue names yours")
    if settings.topology != DEFAULT_FILE or DEFAULT_FILE.exists():
        checks.append(taken(read_spec(settings.topology), str(settings.topology)))
        by.append(str(settings.topology))
    else:
        without.append(f"queues are not checked: there is no {DEFAULT_FILE}; PENSTOCK_TOPOLOGY names yours")
    return checks, by, without


def _show(schedule: Schedule, now: int) -> None:
    state = "" if schedule.enabled else " (disabled)"
    typer.echo(f"{schedule.name}{state}: {schedule.kind}, {schedule.trigger.words}")
    instants = schedule.following(now, _SHOWN)
    for instant in instants:
        typer.echo(f"  {local_text(schedule, instant)} {schedule.zone}, {utc_text(instant)}")
    if not instants:
        typer.echo("  never again")


def _facts(
    file: Path, schedules: Sequence[Schedule], now: int, problems: Sequence[str], without: Sequence[str]
) -> Mapping[str, Any]:
    return {
        "file": str(file),
        "problems": problems,
        "not_checked": without,
        "schedules": [
            {
                "schedule": each.name,
                "kind": each.kind,
                "when": each.trigger.words,
                "zone": each.zone,
                "enabled": each.enabled,
                "next": [both(each, instant) for instant in each.following(now, _SHOWN)],
            }
            for each in schedules
        ],
    }
