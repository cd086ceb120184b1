"""``penstock schedule backfill``: the ticks of a time that is past, published now."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any  # facts as JSON

import typer

from penstock.cli.schedule_outcomes import Outcomes, WorkersStore, in_words, outcomes
from penstock.cli.scheduling import FILE, File, Name, both, local_text, named, on_broker, shown_json
from penstock.cli.storing import AsJson, on_store, show_columns
from penstock.cli.values import instant as read_instant
from penstock.clock import SystemClock
from penstock.errors import PenstockError, UsageError
from penstock.events import Events
from penstock.message import MAX_BODY
from penstock.printable import printable
from penstock.publishing import Packer, Publishing
from penstock.reconnecting import Reconnecting
from penstock.schedules.model import Overlap, Schedule, tick_id, utc_text
from penstock.schedules.ticks import asked_for, tick_headers
from penstock.sending import Sender
from penstock.settings import Settings

#: Ticks of one call, at most; and seconds in which each has to be confirmed.
MOST = 10_000
_CONFIRM = 10.0
#: Refused ticks that are told one by one.
_TOLD = 20

_SAME_ID = (
    "each has the job id of its instant: one that has run has no second effect where the handler has a store that still"
    " remembers it, and runs again where it has none"
)

Since = Annotated[
    datetime,
    typer.Option("--from", parser=read_instant, metavar="INSTANT", help="The first: 2026-11-01T00:00:00+01:00."),
]
Until = Annotated[
    datetime, typer.Option("--to", parser=read_instant, metavar="INSTANT", help="The last, itself included.")
]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be published, and what is known of it."""

    schedule: Schedule
    instants: Sequence[int]
    known: Outcomes
    reason: str

    def outcome(self, instant: int) -> str:
        return in_words(self.known, tick_id(self.schedule.name, instant))


def backfill_command(
    name: Name,
    since: Since,
    until: Until,
    file: File = FILE,
    overlap: Annotated[
        Overlap | None, typer.Option("--overlap", help="In place of the schedule's own.", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be published, and publish nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store_url: WorkersStore = None,
    as_json: AsJson = False,
) -> None:
    """Publish the ticks of a schedule between two past instants, both included, now: neither delayed nor expired.

    Each has the id it has had or would have had, so that one that has run has no second effect where its handler has a
    store. Safe to interrupt and to say again. Exit code 7 when some were not taken.
    """
    schedule = named(file, name)
    instants = _instants(schedule, since, until)
    if not dry_run:
        _check_overlap(schedule, instants, overlap)
    ids = [tick_id(name, each) for each in instants]
    known, reason = on_store(store_url, lambda settings: outcomes(settings, ids))
    plan = _Plan(schedule, instants, known, reason)
    if dry_run or not instants:
        _show(plan, as_json)
        return
    if not yes and not _consented(plan):
        typer.echo("nothing was published")
        return
    answers = on_broker(Settings.load(), partial(_publish, plan, overlap))
    _report(plan, answers, as_json)


def _instants(schedule: Schedule, since: datetime, until: datetime) -> Sequence[int]:
    """The instants of *schedule* in that time. Raises ``UsageError`` where it has no end, or is no past time."""
    first, last = math.ceil(since.timestamp()), int(until.timestamp())
    if first > last:
        raise UsageError("--from is after --to")
    if last > time.time():
        raise UsageError("--to is still to come: what is not due yet comes by itself")
    found = [each for each in schedule.following(first - 1, MOST + 1) if each <= last]
    if len(found) > MOST:
        raise UsageError(f"there are more than {MOST} ticks in that time: backfill it in parts")
    return found


def _check_overlap(schedule: Schedule, instants: Sequence[int], asked: Overlap | None) -> None:
    """Raise ``UsageError`` where most ticks would be skipped and nobody has said that this is meant."""
    own = schedule.overlap
    if own is not Overlap.ALLOW and asked is None and len(instants) > 1:
        raise UsageError(
            f"{schedule.name} has overlap: {own}, by which most of these ticks would be skipped;"
            f" say --overlap allow to let them run beside each other, or --overlap {own} if that is meant"
        )


def _consented(plan: _Plan) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"this would publish {len(plan.instants)} ticks: say --yes, or look first with --dry-run")
    for line in _summary(plan):
        typer.echo(line, err=True)
    return typer.confirm(f"publish {len(plan.instants)} ticks now?", err=True)


async def _publish(plan: _Plan, overlap: Overlap | None, links: Reconnecting) -> Sequence[PenstockError | None]:
    """The broker's answer to each tick, None where it is confirmed."""
    packer = Packer(SystemClock(), "penstock-schedule", MAX_BODY, None)
    packed = [packer.pack(asked_for(plan.schedule, each)) for each in plan.instants]
    for outgoing in packed:
        outgoing.message.headers |= tick_headers(plan.schedule, overlap)
    return await Publishing(Sender(links), Events()).send_many(packed, _CONFIRM)


def _show(plan: _Plan, as_json: bool) -> None:
    """Say what would be published."""
    if as_json:
        shown_json({**_facts(plan), "published": 0})
        return
    schedule = plan.schedule
    rows = [(local_text(schedule, each), utc_text(each), plan.outcome(each)) for each in plan.instants]
    show_columns(("local", "UTC", "outcome"), rows)
    for line in _summary(plan):
        typer.echo(line)
    typer.echo("nothing was published")


def _report(plan: _Plan, answers: Sequence[PenstockError | None], as_json: bool) -> None:
    """Say what was published. Ends with the code of what kept a tick from it."""
    refused = [(each, error) for each, error in zip(plan.instants, answers, strict=True) if error is not None]
    published = len(answers) - len(refused)
    if as_json:
        told = [{"id": tick_id(plan.schedule.name, each), "error": str(error)} for each, error in refused]
        shown_json({**_facts(plan), "published": published, "refused": told})
    else:
        for line in _summary(plan):
            typer.echo(line)
        typer.echo(
            f"{published} published" + (f", {len(refused)} not taken; it is safe to say it again" if refused else "")
        )
        for each, error in refused[:_TOLD]:
            typer.echo(f"  {utc_text(each)}: {printable(str(error))}")
    if refused:
        raise typer.Exit(refused[0][1].exit_code)


def _summary(plan: _Plan) -> Iterator[str]:
    """What is meant, what is known of it, and what it does."""
    name, instants = plan.schedule.name, plan.instants
    if not instants:
        yield f"{name} has no tick in that time"
        return
    span = f"{local_text(plan.schedule, instants[0])} to {local_text(plan.schedule, instants[-1])}"
    yield f"{name}: {len(instants)} ticks of {plan.schedule.kind}, {span}"
    if plan.known:
        counts = Counter(map(plan.outcome, instants))
        yield "by the store: " + ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    if plan.reason:
        yield plan.reason
    yield _SAME_ID


def _facts(plan: _Plan) -> Mapping[str, Any]:
    ids = [tick_id(plan.schedule.name, each) for each in plan.instants]
    return {
        "schedule": plan.schedule.name,
        "kind": plan.schedule.kind,
        "outcomes_unknown": plan.reason or None,
        "ticks": [
            {**both(plan.schedule, each), "id": job_id, "outcomes": plan.known.get(job_id)}
            for each, job_id in zip(plan.instants, ids, strict=True)
        ],
    }
