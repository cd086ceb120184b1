"""``penstock dead``: what could not be done, looked at, replayed and thrown away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar  # letters as JSON

import orjson
import typer

from penstock import logs
from penstock.cli.values import span
from penstock.connect import broker_for
from penstock.dead_letters import DeadLetters
from penstock.errors import TopologyMismatch, UsageError
from penstock.event_log import EventLog
from penstock.letters import DeadLetter, Filter
from penstock.printable import printable, shortened
from penstock.settings import LogLevel, Settings
from penstock.topology.names import UNROUTED, dead_queue
from penstock.topology.reading import read_spec

T = TypeVar("T")

_MAX_BODY_SHOWN = 4000

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
    letters = _on_broker(lambda dead, settings: _found(dead, _queues(queue, settings), where, limit))
    if as_json:
        typer.echo(orjson.dumps([_plain(letter) for letter in letters]).decode())
        return
    for letter in letters:
        typer.echo(_line(letter))
    typer.echo(f"{len(letters)} dead letters")


@app.command("show")
def show_command(
    id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],  # noqa: A002
    queue: Queue = None,
    as_json: AsJson = False,
) -> None:
    """Show everything a dead letter tells: arguments, error, traceback, history, headers."""
    letters = _on_broker(lambda dead, settings: _found(dead, _queues(queue, settings), Filter(id=id), None))
    if not letters:
        raise UsageError(f"no dead letter with the id {id!r}; see penstock dead list")
    if as_json:
        typer.echo(orjson.dumps([_plain(letter, whole=True) for letter in letters]).decode())
        return
    for letter in letters:
        typer.echo(_story(letter))


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
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Let dead jobs run again, from attempt 1, in the queue they died in. Safe to interrupt."""
    where = Filter(kind, reason, error_type, older_than, id)
    if dry_run:
        _would("replay", where, queue, limit, as_json)
        return

    async def replay(dead: DeadLetters, settings: Settings) -> tuple[int, list[tuple[str, str]], list[str]]:
        replayed, failed, stopped = 0, list[tuple[str, str]](), list[str]()
        for name in _queues(queue, settings):
            result = await dead.replay(name, where, limit=limit, rate=rate)
            replayed += result.replayed
            failed += result.failed
            stopped += [] if result.stopped is None else [f"{name}: {result.stopped}"]
        return replayed, failed, stopped

    replayed, failed, stopped = _on_broker(replay)
    if as_json:
        typer.echo(orjson.dumps({"replayed": replayed, "failed": failed, "stopped": stopped}).decode())
    else:
        typer.echo(f"{replayed} replayed, {len(failed)} stayed")
        for job_id, why in failed:
            typer.echo(f"  {printable(job_id)}: {printable(why)}")
        for why in stopped:
            typer.echo(f"stopped early: {printable(why)}", err=True)
    if failed or stopped:
        raise typer.Exit(7)


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
    typer.echo(orjson.dumps({"purged": purged}).decode() if as_json else f"{purged} thrown away")


def _would(verb: str, where: Filter, queue: str | None, limit: int | None, as_json: bool) -> None:
    letters = _on_broker(lambda dead, settings: _found(dead, _queues(queue, settings), where, limit))
    if as_json:
        typer.echo(orjson.dumps({f"would_{verb}": [letter.id for letter in letters]}).decode())
        return
    for letter in letters:
        typer.echo(_line(letter))
    typer.echo(f"would {verb} {len(letters)} dead letters; nothing was done")


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


async def _found(dead: DeadLetters, queues: Sequence[str], where: Filter, limit: int | None) -> list[DeadLetter]:
    letters: list[DeadLetter] = []
    for queue in queues:
        try:
            async with aclosing(dead.look(queue, where, limit=limit)) as found:
                letters += [letter async for letter in found]
        except TopologyMismatch as error:
            raise TopologyMismatch(f"{error}; is the queue's name right, and the topology applied?") from error
    return letters


def _line(letter: DeadLetter) -> str:
    error = f"{letter.error_type}: {letter.error}" if letter.error_type else letter.error
    when = _instant(letter.died) or "-"
    words = f"{when}  {letter.queue}  {letter.kind or '-'}  {letter.id or '-'}  {letter.reason or '-'}  {error}"
    return shortened(printable(words), 240)


def _story(letter: DeadLetter) -> str:
    facts = {
        "id": letter.id,
        "kind": letter.kind,
        "queue": letter.queue,
        "reason": letter.reason,
        "error": f"{letter.error_type}: {letter.error}" if letter.error_type else letter.error,
        "died": _instant(letter.died),
        "published": _instant(letter.published),
        "attempt": str(letter.attempt),
        "copy": str(letter.copy),
        "worker": letter.worker,
    }
    lines = [f"{name:<10} {printable(value)}" for name, value in facts.items() if value]
    lines += [f"history    {printable(line)}" for line in letter.history]
    lines += ["", "arguments", *(f"  {printable(line)}" for line in _body(letter).splitlines())]
    if letter.traceback:
        lines += ["", "traceback", *(f"  {printable(line)}" for line in letter.traceback.splitlines())]
    return "\n".join([*lines, ""])


def _body(letter: DeadLetter) -> str:
    """The arguments, indented where they are JSON; otherwise the first bytes, made harmless."""
    body = letter.message.body
    if len(body) <= _MAX_BODY_SHOWN:
        try:
            return orjson.dumps(orjson.loads(body), option=orjson.OPT_INDENT_2).decode()
        except orjson.JSONDecodeError:
            pass
    text = body[:_MAX_BODY_SHOWN].decode("utf-8", "backslashreplace")
    more = len(body) - _MAX_BODY_SHOWN
    return text + (f" … and {more} bytes more" if more > 0 else "")


def _plain(letter: DeadLetter, *, whole: bool = False) -> dict[str, Any]:
    names = ("queue", "id", "kind", "reason", "error_type", "error", "attempt", "copy", "worker")
    plain: dict[str, Any] = {name: getattr(letter, name) for name in names}
    plain |= {"died": _instant(letter.died), "published": _instant(letter.published)}
    if whole:
        headers = {
            name: value if isinstance(value, str | int) else repr(value)
            for name, value in letter.message.headers.items()
        }
        plain |= {
            "traceback": letter.traceback,
            "history": letter.history,
            "arguments": _body(letter),
            "headers": headers,
        }
    return plain


def _instant(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
