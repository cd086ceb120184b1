"""``penstock dead export`` and ``import``: letters written into a file as lines of JSON, and put back from one."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import IO, Annotated

import orjson
import typer

from penstock.cli.dead_moves import Because, DryRun
from penstock.cli.letter_choice import Choice, chosen, on_broker
from penstock.cli.storing import AsJson
from penstock.dead_letters import THERE, DeadLetters
from penstock.errors import PublishError, UsageError
from penstock.letter_lines import line_of, read_line
from penstock.letter_moves import MoveResult
from penstock.message import Message
from penstock.printable import printable
from penstock.settings import Settings
from penstock.topology.names import UNROUTED

#: The longest line that is read: a letter of 1 MiB, every character of it spelled as an escape, and its headers.
_MAX_LINE = 16 * 1024 * 1024

#: What is read from standard input is kept in memory up to so many bytes, then on disk.
_IN_MEMORY = 1024 * 1024


def add_to(app: typer.Typer) -> None:
    """Give *app* these commands."""
    app.command("export")(export_command)
    app.command("import")(import_command)


@chosen
def export_command(
    choice: Choice,
    output: Annotated[Path | None, typer.Option("--output", metavar="FILE", help="Where to (standard output).")] = None,
    because: Because = "",
    as_json: AsJson = False,
) -> None:
    """Write dead letters as lines of JSON, whole, secrets included; they stay where they are."""
    with _written(output) as write:

        async def export(dead: DeadLetters, settings: Settings) -> Counter[str]:
            counts: Counter[str] = Counter()
            for queue in choice.queues(settings):
                async with aclosing(dead.look(queue, choice.where, limit=choice.limit)) as letters:
                    async for letter in letters:
                        write(line_of(letter) + "\n")
                        counts[queue] += 1
                if counts[queue]:
                    await dead.note("export", queue, choice.where, counts[queue], because)
            return counts

        counts = on_broker(export)
    words = {"exported": counts.total()} if as_json else f"{counts.total()} dead letters exported"
    typer.echo(orjson.dumps(words).decode() if as_json else words, err=output is None)


def import_command(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="What penstock dead export wrote.")],
    because: Because = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Put exported letters back into their dead-letter queues, but for those that are there. Safe to do again.

    Every line is read before the first letter is put anywhere.
    """
    with _opened(file) as lines:
        counts = Counter(queue for queue, _ in _letters(lines))
        result = MoveResult()

        async def put_back(dead: DeadLetters, _: Settings) -> None:
            for queue in counts:
                await dead.depth(queue)
            for queue in counts if not dry_run else ():
                lines.seek(0)
                messages = (message for name, message in _letters(lines) if name == queue)
                result.add(await dead.put_back(queue, messages, because=because))

        on_broker(put_back)
    _tell(result, counts.total(), dry_run=dry_run, as_json=as_json)


def _tell(result: MoveResult, total: int, *, dry_run: bool, as_json: bool) -> None:
    stayed = [(job_id, why) for job_id, why in result.stayed if why != THERE]
    if as_json:
        facts = (
            {"would_import": total} if dry_run else {"imported": result.done, "there": len(result.stayed) - len(stayed)}
        )
        typer.echo(orjson.dumps({**facts, "failed": [{"id": job_id, "why": why} for job_id, why in stayed]}).decode())
    elif dry_run:
        typer.echo(f"would put {total} dead letters back, but for those that are there; nothing was done")
    else:
        typer.echo(f"{result.done} put back, {len(result.stayed) - len(stayed)} were there, {len(stayed)} failed")
        for job_id, why in stayed[:20]:
            typer.echo(f"  {printable(job_id) or '-'}: {printable(why)}")
    if stayed:
        raise typer.Exit(PublishError.exit_code)


@contextmanager
def _written(output: Path | None) -> Iterator[Callable[[str], object]]:
    """A way to write lines: to standard output, or to a file that is there once it is complete, ours alone to read."""
    if output is None:
        yield lambda line: typer.echo(line, nl=False)
        return
    try:
        descriptor, name = tempfile.mkstemp(dir=output.parent, prefix=f".{output.name}.")
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror}") from None
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            yield file.write
            file.flush()
            os.fsync(file.fileno())
        part.replace(output)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UsageError(f"cannot write {output}: {error.strerror}") from None
        raise


@contextmanager
def _opened(name: str) -> Iterator[IO[bytes]]:
    """The lines of *name*, to be gone through more than once."""
    if name == "-":
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as kept:
            shutil.copyfileobj(sys.stdin.buffer, kept)
            kept.seek(0)
            yield kept
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None
    with file:
        yield file


def _letters(lines: IO[bytes]) -> Iterator[tuple[str, Message]]:
    number = 0
    while line := lines.readline(_MAX_LINE + 1):
        number += 1
        if len(line) > _MAX_LINE:
            raise UsageError(f"line {number}: longer than {_MAX_LINE} bytes")
        if not line.strip():
            continue
        try:
            queue, message = read_line(line)
        except UsageError as error:
            raise UsageError(f"line {number}: {error}; nothing was put back") from None
        if queue != UNROUTED and not queue.endswith(".dead"):
            raise UsageError(f"line {number}: {queue!r} is no dead-letter queue; nothing was put back")
        yield queue, message
