"""Which dead letters a command means: the options that all of them share, and the broker they are on."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Annotated, Any, TypeVar  # options of many types, coroutines of any kind

import typer

from penstock import logs
from penstock.audit import actor
from penstock.cli.values import span
from penstock.connect import broker_for
from penstock.dead_letters import DeadLetters
from penstock.errors import UsageError
from penstock.event_log import subscribe
from penstock.letters import DeadLetter, Filter
from penstock.settings import LogLevel, Settings
from penstock.topology.names import UNROUTED, dead_queue
from penstock.topology.reading import read_spec

T = TypeVar("T")

QueueOption = Annotated[
    str | None, typer.Option("--queue", metavar="NAME", help="One queue, such as email (all of the topology file).")
]


def _options(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Only these jobs.")] = None,
    queue: QueueOption = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="PATTERN", help="Only this kind; * and # as in bindings.")
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="GROUP", help="Only this group of penstock dead groups.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="REASON", help="Only this reason, such as exhausted.")
    ] = None,
    error_type: Annotated[
        str | None, typer.Option("--error-type", metavar="CLASS", help="Only this class of error.")
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", metavar="TEXT", help="Only with this in the error or the arguments.")
    ] = None,
    attempt: Annotated[
        int | None, typer.Option("--attempt", min=1, metavar="N", help="Only what died in this attempt.")
    ] = None,
    copy: Annotated[
        int | None, typer.Option("--copy", min=0, metavar="N", help="Only this copy, of several with one id.")
    ] = None,
    older_than: Annotated[
        timedelta | None,
        typer.Option("--older-than", parser=span, metavar="DURATION", help="Dead for at least 1h, 30d."),
    ] = None,
    newer_than: Annotated[
        timedelta | None,
        typer.Option("--newer-than", parser=span, metavar="DURATION", help="Dead for at most 1h, 30d."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="At most so many of each queue.")
    ] = None,
) -> Choice:
    chosen = frozenset(ids) if ids else None
    where = Filter(kind, reason, error_type, older_than, newer_than, attempt, text, group, copy, chosen)
    return Choice(where, queue, limit)


@dataclass(frozen=True, slots=True)
class Choice:
    """The letters a command line asks for: *limit* is for each queue."""

    where: Filter
    queue: str | None = None
    limit: int | None = None

    @property
    def everything(self) -> bool:
        """Whether nothing was said, so that every letter of the broker is meant."""
        return self.where.everything and self.queue is None and self.limit is None

    def queues(self, settings: Settings) -> Sequence[str]:
        """The dead-letter queues meant: one by its short or full name, or all that the topology file has."""
        if self.queue is None:
            spec = read_spec(settings.topology)
            return [*(dead_queue(known.name) for known in spec.queues), UNROUTED]
        if self.queue in ("unrouted", UNROUTED):
            return [UNROUTED]
        return [dead_queue(self.queue.removeprefix("jobs.").removesuffix(".dead"))]


def chosen(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command*, which takes a ``Choice`` first, the options that make one."""
    shared = inspect.signature(_options, eval_str=True).parameters
    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]

    @wraps(command)
    def run(**given: Any) -> None:
        command(_options(**{name: given.pop(name) for name in shared}), **given)

    parameters = [*shared.values(), *own]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # typer reads it
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def look(choice: Choice, view: Callable[[DeadLetter, Settings], T]) -> list[T]:
    """*view* of every letter that is meant; the letters themselves, bodies and all, are not kept."""

    async def seen(dead: DeadLetters, settings: Settings) -> list[T]:
        return [view(letter, settings) async for letter in each(dead, choice, settings)]

    return on_broker(seen)


async def each(dead: DeadLetters, choice: Choice, settings: Settings) -> AsyncIterator[DeadLetter]:
    """Every letter that is meant, queue by queue."""
    for name in choice.queues(settings):
        async with aclosing(dead.look(name, choice.where, limit=choice.limit)) as letters:
            async for letter in letters:
                yield letter


def the_one(found: Sequence[DeadLetter], job_id: str) -> DeadLetter:
    """The only letter of *found*. Raises ``UsageError`` when there is none, or when the copy has to be named."""
    if not found:
        raise no_letter(job_id)
    if len(found) > 1:
        which = ", ".join(f"copy {letter.copy} in {letter.queue}" for letter in found[:5])
        raise UsageError(f"{len(found)} dead letters have the id {job_id!r} ({which}): say --copy or --queue")
    return found[0]


def no_letter(job_id: str) -> UsageError:
    """What to say of an id that no letter has."""
    return UsageError(f"no dead letter with the id {job_id!r}, or another command holds it now; see penstock dead list")


def on_broker(work: Callable[[DeadLetters, Settings], Coroutine[Any, Any, T]]) -> T:
    """Run *work* with the dead letters of the broker that the settings name."""
    settings = Settings.load()
    logs.setup(settings, default=LogLevel.WARNING)

    async def run() -> T:
        async with _dead_letters(settings) as dead:
            return await work(dead, settings)

    return asyncio.run(run())


@asynccontextmanager
async def _dead_letters(settings: Settings) -> AsyncIterator[DeadLetters]:
    url = settings.broker_url
    who = f"{actor()} as {url.user}"
    async with DeadLetters(broker_for(url), connect_timeout=settings.connect_timeout, who=who) as dead:
        subscribe(dead.events)
        yield dead
