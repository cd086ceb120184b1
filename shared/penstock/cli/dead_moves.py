"""``penstock dead replay`` and ``discard``: letters that leave their queue, to run again or for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any  # results as JSON

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from penstock.canaries import Canaries, Verdict
from penstock.cli.letter_choice import Choice, chosen, look, on_broker
from penstock.cli.letter_view import row, show_rows
from penstock.cli.storing import AsJson, StoreUrlOption, patiently, show_columns
from penstock.cli.values import span
from penstock.connect import store_for
from penstock.dead_letters import MAX_REPLAYS, DeadLetters
from penstock.errors import PublishError, UsageError
from penstock.letter_moves import MoveResult
from penstock.letters import DeadLetter
from penstock.printable import printable
from penstock.settings import Settings
from penstock.storing import Store

_DIED_AGAIN = 6

_WAIT = timedelta(seconds=30)

#: Reasons to stay, and ids of each, that are told without --json.
_REASONS, _IDS = 10, 5

Because = Annotated[str, typer.Option("--because", metavar="TEXT", help="Why, for the audit.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def add_to(app: typer.Typer) -> None:
    """Give *app* these commands."""
    app.command("replay")(replay_command)
    app.command("discard")(discard_command)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How letters are replayed: *store* tells of canaries what became of them."""

    rate: float | None
    force: bool
    canary: int | None
    wait: timedelta
    because: str
    store: Store | None = None


@dataclass(slots=True)
class _Report:
    """What became of the letters of all queues, counted by queue and kind as well; *tick* is called for each, *expect*
    with how many there are."""

    moved: str
    result: MoveResult = field(default_factory=MoveResult)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    tick: Callable[[], None] = lambda: None
    expect: Callable[[int], None] = lambda _: None

    def count(self, letter: DeadLetter) -> None:
        """*letter* is done."""
        key = (letter.queue, letter.kind)
        self.counts[key if len(self.counts) < _KINDS else (letter.queue, "…")] += 1
        self.tick()

    @property
    def canaries_died(self) -> bool:
        """Whether the others were left alone for it."""
        return not all(verdict.good for verdict in self.verdicts.values())

    def plain(self) -> dict[str, Any]:
        """All of it as JSON values."""
        stopped = self.result.stopped
        canaries = {
            queue: {
                job_id: {"fate": fate, "error": verdict.errors.get(job_id)} for job_id, fate in verdict.fates.items()
            }
            for queue, verdict in self.verdicts.items()
        }
        return {
            self.moved: self.result.done,
            "stayed": [{"id": job_id, "why": why} for job_id, why in self.result.stayed],
            "kinds": [{"queue": queue, "kind": kind, "count": n} for (queue, kind), n in sorted(self.counts.items())],
            "canaries": canaries,
            "stopped": None if stopped is None else str(stopped),
        }


_KINDS = 1000


@chosen
def replay_command(
    choice: Choice,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.01, metavar="N", help="At most so many a second.")
    ] = None,
    canary: Annotated[
        int | None,
        typer.Option(
            "--canary", min=1, max=1000, metavar="N", help="So many of each queue first; the rest if none dies."
        ),
    ] = None,
    wait: Annotated[
        timedelta | None,
        typer.Option("--wait", parser=span, metavar="DURATION", help="How long canaries are watched (30s)."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Needed to replay without any filter.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help=f"Also jobs replayed {MAX_REPLAYS} times before, letters that are no jobs, and jobs that happen once "
            "and whose store may have forgotten them.",
        ),
    ] = False,
    because: Because = "",
    store_url: StoreUrlOption = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let dead jobs run again, from attempt 1, in the queue they died in. Safe to interrupt, and to do again.

    With --canary, a few run first, as the attempt they died in. Their store says whether they are done
    (PENSTOCK_STORE_URL); of jobs without one, those that are not dead again after --wait count as good. If one dies
    again, or has not ended in its store, the others stay and the exit code is 6.
    """
    if dry_run:
        _would("replay", choice, as_json)
        return
    if choice.everything and not everything:
        raise UsageError("this would replay every dead letter: name a queue or a filter, or say --all")
    report = _Report("replayed")

    async def replay(dead: DeadLetters, settings: Settings) -> None:
        async with _store(settings, store_url, canary) as store:
            await _expect(dead, choice, settings, report)
            plan = _Plan(rate, force, canary, _WAIT if wait is None else wait, because, store)
            for name in choice.queues(settings):
                await _replay(dead, name, choice, plan, settings, report)
                if report.result.stopped is not None or report.canaries_died:
                    break

    with _progress(report, as_json):
        on_broker(replay)
    _tell(report, as_json)


@chosen
def discard_command(
    choice: Choice,
    because: Because = "",
    everything: Annotated[bool, typer.Option("--all", help="Needed to discard without any filter.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Throw dead letters away, for good. The audit keeps ids, who did it and why; penstock dead export keeps it all."""
    if dry_run:
        _would("discard", choice, as_json)
        return
    if choice.where.everything and not everything:
        raise UsageError("this would throw away every dead letter: name a filter, or say --all")
    if not because.strip():
        raise UsageError("say why: --because TEXT")
    report = _Report("discarded")

    async def discard(dead: DeadLetters, settings: Settings) -> None:
        await _expect(dead, choice, settings, report)
        for name in choice.queues(settings):
            found = await dead.discard(name, choice.where, because=because, limit=choice.limit, each=report.count)
            report.result.add(found)
            if found.stopped is not None:
                break

    with _progress(report, as_json):
        on_broker(discard)
    _tell(report, as_json)


async def _replay(
    dead: DeadLetters, queue: str, choice: Choice, plan: _Plan, settings: Settings, report: _Report
) -> None:
    """Replay what is meant of *queue*: the canaries first, and the others when those are well."""

    async def part(limit: int | None, each: Callable[[DeadLetter], None], *, last_attempt: bool) -> MoveResult:
        return await dead.replay(
            queue,
            choice.where,
            limit=limit,
            rate=plan.rate,
            remembered=None if plan.force else settings.dead_retention,
            most=None if plan.force else MAX_REPLAYS,
            last_attempt=last_attempt,
            because=plan.because,
            each=each,
        )

    if plan.canary is None:
        report.result.add(await part(choice.limit, report.count, last_attempt=False))
        return
    first: list[DeadLetter] = []

    def sent(letter: DeadLetter) -> None:
        first.append(letter)
        report.count(letter)

    sooner = await part(min(plan.canary, choice.limit or plan.canary), sent, last_attempt=True)
    if first:
        report.verdicts[queue] = await Canaries(dead, queue, first, plan.store).judged(plan.wait)
    left = None if choice.limit is None else choice.limit - sooner.done
    if sooner.stopped is not None or report.canaries_died or len(first) < plan.canary or left == 0:
        report.result.add(sooner)
        return
    report.result.done += sooner.done  # those that stayed are met again
    report.result.add(await part(left, report.count, last_attempt=False))


async def _expect(dead: DeadLetters, choice: Choice, settings: Settings, report: _Report) -> None:
    """Let the bar know its end, where it can be known: without a filter, or from the limit."""
    depths = [await dead.depth(name) for name in choice.queues(settings)]
    most = [depth if choice.limit is None else min(depth, choice.limit) for depth in depths]
    if choice.where.everything or choice.limit is not None:
        report.expect(sum(most))


@asynccontextmanager
async def _store(settings: Settings, url: str | None, canary: int | None) -> AsyncIterator[Store | None]:
    """The store that knows what became of canaries; None where no one names one."""
    settings = settings if url is None else Settings.load(store_url=url)
    if canary is None or settings.store_url is None:
        yield None
        return
    store = store_for(settings.store)
    try:
        await patiently(store.open, settings)
        yield store
    finally:
        await store.close()


@contextmanager
def _progress(report: _Report, as_json: bool) -> Iterator[None]:
    """A bar on a terminal; a word about what was done, should somebody interrupt."""
    console = Console(stderr=True)
    columns = (TextColumn(report.moved), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, disable=as_json or not console.is_terminal, transient=True) as bar:
            task = bar.add_task(report.moved, total=None)
            report.tick = lambda: bar.advance(task)
            report.expect = lambda total: bar.update(task, total=total)
            yield
    except KeyboardInterrupt:
        typer.echo(f"{sum(report.counts.values())} {report.moved}; the same command goes on with the others", err=True)
        raise


def _tell(report: _Report, as_json: bool) -> None:
    """Say what was done. Raises what stopped it, and ends with code 6 when canaries died, 7 when letters stayed."""
    if as_json:
        typer.echo(orjson.dumps(report.plain()).decode())
    else:
        _show(report)
    if report.result.stopped is not None:
        raise report.result.stopped
    if report.canaries_died:
        raise typer.Exit(_DIED_AGAIN)
    if report.result.stayed:
        raise typer.Exit(PublishError.exit_code)


def _show(report: _Report) -> None:
    rows = [(queue, printable(kind) or "-", str(count)) for (queue, kind), count in sorted(report.counts.items())]
    show_columns(("queue", "kind", report.moved), rows)
    for queue, verdict in report.verdicts.items():
        typer.echo(f"canaries of {queue}: {verdict.words}" + ("" if verdict.good else "; the others stayed"))
        for job_id, error in verdict.errors.items():
            typer.echo(f"  {printable(job_id)}: {printable(error)[:240]}")
    typer.echo(f"{report.result.done} {report.moved}, {len(report.result.stayed)} stayed")
    why: dict[str, list[str]] = {}
    for job_id, reason in report.result.stayed:
        why.setdefault(reason, []).append(job_id)
    for reason, ids in list(why.items())[:_REASONS]:
        more = f" and {len(ids) - _IDS} more" if len(ids) > _IDS else ""
        typer.echo(f"  {', '.join(printable(job_id) or '-' for job_id in ids[:_IDS])}{more}: {printable(reason)}")


def _would(verb: str, choice: Choice, as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps({f"would_{verb}": look(choice, lambda letter, _: letter.id)}).decode())
        return
    rows = look(choice, lambda letter, _: row(letter))
    show_rows(rows)
    typer.echo(f"would {verb} {len(rows)} dead letters; nothing was done")
