"""``penstock dead``: what could not be done, looked at, replayed and thrown away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, TypeVar  # coroutines of any kind

import orjson
import typer

from penstock import logs
from penstock.cli.letter_view import plain, row, show_rows, story
from penstock.cli.values import span
from penstock.connect import broker_for
from penstock.dead_letters import DeadLetters, ReplayResult
from penstock.errors import PublishError, UsageError
from penstock.event_log import EventLog
from penstock.letters import DeadLetter, Filter
from penstock.printable import printable
from penstock.settings import LogLevel, Settings
from penstock.topology.names import UNROUTED, dead_queue
from penstock.topology.reading import read_spec

T = TypeVar("T")

_EXAMPLES = """
\b
Examples:
  penstock dead list --queue email --reason exhausted
  penstock dead show 01a209f2-8588-7f54-ae89-1abf246d6430
  penstock dead replay --queue email --kind email.send --dry-run
  penstock dead purge --queue email --older-than 30d
"""

app = typer.Typer(
    help="Look at, replay and throw away dead letters. Looking changes nothing.",
    epilog=_EXAMPLES,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)

Queue = Annotated[
    str | None, typer.Option("--queue", metavar="NAME", help="One queue, such as email (all of the topology file).")
]
Kind = Annotated[str | None, typer.Option("--kind", metavar="PATTERN", help="Only this kind; * and # as in bindings.")]
Reason = Annotated[str | None, typer.Option("--reason", metavar="REASON", help="Only this reason, such as exhausted.")]
ErrorType = Annotated[str | None, typer.Option("--error-type", metavar="CLASS", help="Only this class of error.")]
OlderThan = Annotated[
    timedelta | None, typer.Option("--older-than", parser=span, metavar="DURATION", help="Dead for at least 1h, 30d.")
]
Id = Annotated[str | None, typer.Option("--id", metavar="ID", help="Only this job.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="At most so many of each queue.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_command(
    queue: Queue = None,
    kind: Kind = None,
    reason: Reason = None,
    error_type: ErrorType = None,
    older_than: OlderThan = None,
    id: Id = None,  # noqa: A002
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, the oldest of each queue first."""
    where = Filter(kind, reason, error_type, older_than, id)
    if as_json:
        typer.echo(_dumps(_look(queue, where, limit, plain)))
        return
    rows = _look(queue, where, limit, row)
    show_rows(rows)
    typer.echo(f"{len(rows)} dead letters")


@app.command("show")
def show_command(
    id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],  # noqa: A002
    queue: Queue = None,
    as_json: AsJson = False,
) -> None:
    """Show everything a dead letter tells: arguments, error, traceback, history, headers."""
    found = _look(queue, Filter(id=id), None, partial(plain, whole=True) if as_json else story)
    if not found:
        raise UsageError(f"no dead letter with the id {id!r}; see penstock dead list")
    typer.echo(_dumps(found) if as_json else "\n".join(map(str, found)))


@app.command("replay")
def replay_command(
    queue: Queue = None,
    kind: Kind = None,
    reason: Reason = None,
    error_type: ErrorType = None,
    older_than: OlderThan = None,
    id: Id = None,  # noqa: A002
    limit: Limit = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.01, metavar="N", help="At most so many a second.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also jobs that happen once and whose store may have forgotten them.")
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let dead jobs run again, from attempt 1, in the queue they died in. Safe to interrupt."""
    where = Filter(kind, reason, error_type, older_than, id)
    if dry_run:
        _would("replay", where, queue, limit, as_json)
        return

    async def replay(dead: DeadLetters, settings: Settings) -> ReplayResult:
        total = ReplayResult()
        for name in _queues(queue, settings):
            remembered = None if force else settings.dead_retention
            result = await dead.replay(name, where, limit=limit, rate=rate, remembered=remembered)
            total.replayed += result.replayed
            total.failed += result.failed
            total.stopped = result.stopped
            if total.stopped is not None:
                break
        return total

    _report(_on_broker(replay), as_json)


@app.command("purge")
def purge_command(
    queue: Queue = None,
    kind: Kind = None,
    reason: Reason = None,
    error_type: ErrorType = None,
    older_than: OlderThan = None,
    id: Id = None,  # noqa: A002
    limit: Limit = None,
    everything: Annotated[bool, typer.Option("--all", help="Needed to purge without any filter.")] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Throw dead letters away, for good."""
    where = Filter(kind, reason, error_type, older_than, id)
    if dry_run:
        _would("purge", where, queue, limit, as_json)
        return
    if where.everything and not everything:
        raise UsageError("this would throw away every dead letter: name a filter, or say --all")

    async def purge(dead: DeadLetters, settings: Settings) -> int:
        return sum([await dead.purge(name, where, limit=limit) for name in _queues(queue, settings)])

    purged = _on_broker(purge)
    typer.echo(_dumps({"purged": purged}) if as_json else f"{purged} thrown away")


def _report(result: ReplayResult, as_json: bool) -> None:
    """Say what a replay did. Raises what stopped it, and ends with code 7 when letters stayed for a fault of theirs."""
    if as_json:
        stopped = None if result.stopped is None else str(result.stopped)
        typer.echo(_dumps({"replayed": result.replayed, "failed": result.failed, "stopped": stopped}))
    else:
        typer.echo(f"{result.replayed} replayed, {len(result.failed)} stayed")
        for job_id, why in result.failed:
            typer.echo(f"  {printable(job_id)}: {printable(why)}")
    if result.stopped is not None:
        raise result.stopped
    if result.failed:
        raise typer.Exit(PublishError.exit_code)


def _would(verb: str, where: Filter, queue: str | None, limit: int | None, as_json: bool) -> None:
    if as_json:
        typer.echo(_dumps({f"would_{verb}": _look(queue, where, limit, lambda letter: letter.id)}))
        return
    rows = _look(queue, where, limit, row)
    show_rows(rows)
    typer.echo(f"would {verb} {len(rows)} dead letters; nothing was done")


def _look(queue: str | None, where: Filter, limit: int | None, view: Callable[[DeadLetter], T]) -> list[T]:
    """*view* of every letter that is meant; the letters themselves, bodies and all, are not kept."""

    async def look(dead: DeadLetters, settings: Settings) -> list[T]:
        seen: list[T] = []
        for name in _queues(queue, settings):
            async with aclosing(dead.look(name, where, limit=limit)) as letters:
                seen += [view(letter) async for letter in letters]
        return seen

    return _on_broker(look)


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


def _on_broker(work: Callable[[DeadLetters, Settings], Coroutine[Any, Any, T]]) -> T:
    """Run *work* with the dead letters of the broker that the settings name."""
    settings = Settings.load()
    logs.setup(settings, default=LogLevel.WARNING)

    async def run() -> T:
        async with _dead_letters(settings) as dead:
            return await work(dead, settings)

    return asyncio.run(run())


@asynccontextmanager
async def _dead_letters(settings: Settings) -> AsyncIterator[DeadLetters]:
    async with DeadLetters(broker_for(settings.broker_url), connect_timeout=settings.connect_timeout) as dead:
        dead.events.subscribe(EventLog())
        yield dead


def _queues(queue: str | None, settings: Settings) -> Sequence[str]:
    """The dead-letter queues meant: one by its short or full name, or all that the topology file has."""
    if queue is None:
        spec = read_spec(settings.topology)
        return [*(dead_queue(known.name) for known in spec.queues), UNROUTED]
    if queue in ("unrouted", UNROUTED):
        return [UNROUTED]
    return [dead_queue(queue.removeprefix("jobs.").removesuffix(".dead"))]
