"""``penstock catalogue check``: whether kinds, queues, workers and handlers fit together, before anything runs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any  # a catalogue's kinds have arguments of many types

import orjson
import typer

from penstock import factory
from penstock.cli.catalogue import CATALOGUE, read_catalogue
from penstock.cli.storing import AsJson
from penstock.cli.topology import File
from penstock.errors import PenstockError
from penstock.job import JobKind
from penstock.printable import printable
from penstock.settings import Settings
from penstock.topology.form import near
from penstock.topology.matching import matches
from penstock.topology.reading import read_spec
from penstock.topology.spec import QueueSpec, Spec

#: The exit code when something was found.
_FOUND = 6

#: Where workers are when none is named: every ``app.py`` here whose function ``build`` says that it makes one.
_SERVICES = Path("services")
_BUILD = re.compile(r"^(async )?def build\([^)]*\) -> [^\n]*\bWorker\b", re.MULTILINE)

_EXAMPLES = """
\b
Examples:
  penstock catalogue check                                   every services/*/app.py whose build makes one
  penstock catalogue check services.mailer.app:build --json
  penstock catalogue check --catalogue shop:KINDS --file rabbitmq/topology.yaml

\b
Asks no broker and no store. Workers are built, so their settings have to be there.
Exit codes: 0 all fits together, 2 no catalogue, 5 no topology, 6 something was found.
"""

app = typer.Typer(
    help="Check that kinds, queues, workers and handlers fit together.",
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)


class Gap(StrEnum):
    """What does not fit together."""

    KIND_WITHOUT_QUEUE = "kind without a queue"
    KIND_WITHOUT_HANDLER = "kind without a handler"
    QUEUE_WITHOUT_WORKER = "queue without a worker"
    WORKER_WITHOUT_QUEUE = "worker without a queue"
    WORKER_NOT_BUILT = "worker that cannot be built"
    HANDLER_WITHOUT_KIND = "handler without a kind"
    HANDLER_OUT_OF_REACH = "handler that nothing reaches"
    EXAMPLE_DOES_NOT_FIT = "example that does not fit"


@dataclass(frozen=True, slots=True)
class Found:
    """One gap: which it is, what it is about, and what is wrong and helps, in words."""

    gap: Gap
    about: str
    words: str


@dataclass(frozen=True, slots=True)
class Staff:
    """What the check knows of a worker: what built it, its queue, and the kinds it has handlers for."""

    target: str
    queue: str
    kinds: frozenset[str]


@app.callback()
def _several() -> None:
    """Lets ``check`` be a word of its own."""


@app.command("check", epilog=_EXAMPLES)
def check_command(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE:FACTORY]...", help="The workers (services.*.app:build).", show_default=False),
    ] = None,
    apps: Annotated[
        list[str] | None, typer.Option("--app", metavar="MODULE:FACTORY", help="A further worker; may be repeated.")
    ] = None,
    catalogue: Annotated[str, typer.Option("--catalogue", metavar="MODULE:NAME", help="The kinds.")] = CATALOGUE,
    file: File = None,
    as_json: AsJson = False,
) -> None:
    """Find kinds that no queue takes, queues that no worker works on, handlers that no kind reaches, and examples that
    their own kind would refuse."""
    settings = Settings.load(topology=file)
    kinds, spec = read_catalogue(catalogue), read_spec(settings.topology)
    workers = [*(targets or []), *(apps or [])] or _built_by_services()
    staff, unbuilt = asyncio.run(_staff(workers))
    found = [*_kinds_without_queue(kinds, spec), *unbuilt, *_examples(kinds)]
    # What nobody could build may be what is missing: nothing is said then of who works on what.
    if workers and not unbuilt:
        found += [*_queues(kinds, spec, staff), *_handlers(kinds, spec, staff)]
    without = [] if workers else ["workers are not checked: no services/*/app.py builds one; name MODULE:FACTORY"]
    if as_json:
        typer.echo(orjson.dumps({"found": [asdict(each) for each in found], "not_checked": without}).decode())
    else:
        _show(found, without, f"{len(kinds)} kinds, {len(spec.queues)} queues, {len(staff)} workers")
    if found:
        raise typer.Exit(_FOUND)


def _show(found: Sequence[Found], without: Sequence[str], counted: str) -> None:
    for each in found:
        typer.echo(printable(f"{each.gap}: {each.about}: {each.words}"))
    for line in without:
        typer.echo(line)
    typer.echo(f"{counted}: {f'{len(found)} found' if found else 'all fit together'}")


def _built_by_services() -> list[str]:
    """The factories of the services around here. Files are read, not imported: most programs have no worker."""
    files = sorted(_SERVICES.glob("*/app.py"))
    return [f"{_SERVICES}.{file.parent.name}.app:build" for file in files if _BUILD.search(file.read_text("utf-8"))]


async def _staff(targets: Sequence[str]) -> tuple[list[Staff], list[Found]]:
    """The workers of *targets*, and those that could not be built."""
    built: list[Staff] = []
    unbuilt: list[Found] = []
    for target in targets:
        try:
            async with factory.opened(target) as worker:
                kinds = frozenset(handler.kind.name for handler in worker.handlers)
                built.append(Staff(target, worker.queue, kinds))
        except PenstockError as error:
            unbuilt.append(Found(Gap.WORKER_NOT_BUILT, target, str(error)))
        except Exception as error:  # noqa: BLE001 - the factory is foreign code, and whatever it raises is what was found
            unbuilt.append(Found(Gap.WORKER_NOT_BUILT, target, f"{type(error).__name__}: {error}"))
    return built, unbuilt


def _kinds_without_queue(kinds: Mapping[str, JobKind[Any]], spec: Spec) -> Iterator[Found]:
    for kind in kinds:
        if not _takes(spec.patterns, kind):
            yield Found(Gap.KIND_WITHOUT_QUEUE, kind, "whoever publishes it gets it back; bind it to a queue")


def _queues(kinds: Mapping[str, JobKind[Any]], spec: Spec, staff: Sequence[Staff]) -> Iterator[Found]:
    """Queues that nobody works on, and kinds that come by a queue whose workers do not know them."""
    for queue in spec.queues:
        crew = [each for each in staff if each.queue == queue.name]
        if not crew:
            yield Found(Gap.QUEUE_WITHOUT_WORKER, queue.name, "its jobs wait for ever; name its worker, or take it out")
            continue
        known = frozenset[str]().union(*(each.kinds for each in crew))
        for kind in kinds:
            if kind not in known and _takes(spec.patterns_of(queue), kind):
                words = f"queue {queue.name} takes it, and no handler of {_named(crew)} does: it would be a dead letter"
                yield Found(Gap.KIND_WITHOUT_HANDLER, kind, words)


def _handlers(kinds: Mapping[str, JobKind[Any]], spec: Spec, staff: Sequence[Staff]) -> Iterator[Found]:
    """Workers whose queue is not there, and handlers that no job of the catalogue can reach."""
    queues: Mapping[str, QueueSpec] = {queue.name: queue for queue in spec.queues}
    for worker in staff:
        queue = queues.get(worker.queue)
        if queue is None:
            words = f"there is no queue {worker.queue!r} in the topology{near(worker.queue, queues)}"
            yield Found(Gap.WORKER_WITHOUT_QUEUE, worker.target, words)
        for kind in sorted(worker.kinds):
            if kind not in kinds:
                words = f"{worker.target} has a handler for it, and the catalogue no such kind{near(kind, kinds)}"
                yield Found(Gap.HANDLER_WITHOUT_KIND, kind, words)
            elif queue is not None and not _takes(spec.patterns_of(queue), kind):
                words = f"{worker.target} has a handler for it, and its queue {queue.name} does not bind it"
                yield Found(Gap.HANDLER_OUT_OF_REACH, kind, words)


def _examples(kinds: Mapping[str, JobKind[Any]]) -> Iterator[Found]:
    for name, kind in kinds.items():
        for number, example in enumerate(_examples_of(kind), 1):
            try:
                kind.decode(orjson.dumps(example))
            except Exception as error:  # noqa: BLE001 - validators of a kind are foreign code and may raise anything
                yield Found(Gap.EXAMPLE_DOES_NOT_FIT, name, f"example {number}: {error}")


def _examples_of(kind: JobKind[Any]) -> Sequence[Any]:
    found = kind.schema().get("examples", [])
    return found if isinstance(found, list) else [found]


def _takes(patterns: Sequence[str], kind: str) -> bool:
    return any(matches(pattern, kind) for pattern in patterns)


def _named(crew: Sequence[Staff]) -> str:
    return ", ".join(each.target for each in crew)
