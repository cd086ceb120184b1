"""``penstock dead edit``: a letter's arguments or kind put right, by a patch or in an editor."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import tempfile
from difflib import unified_diff
from pathlib import Path
from typing import Annotated, Any  # arguments are JSON

import orjson
import typer

from penstock.cli.catalogue import CATALOGUE
from penstock.cli.dead_moves import Because, DryRun
from penstock.cli.letter_choice import Choice, QueueOption, look, on_broker, the_one
from penstock.cli.publish import checked, read_body
from penstock.cli.storing import AsJson
from penstock.dead_letters import DeadLetters
from penstock.errors import DecodeError, TooLarge, UsageError
from penstock.job import is_kind, json_object
from penstock.json_patch import patched
from penstock.letters import DeadLetter, Filter
from penstock.message import MAX_BODY
from penstock.printable import printable
from penstock.settings import Settings

_CHANGED_LINES = 200


def add_to(app: typer.Typer) -> None:
    """Give *app* this command."""
    app.command("edit")(edit_command)


def edit_command(
    id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],  # noqa: A002
    queue: QueueOption = None,
    copy: Annotated[int | None, typer.Option("--copy", min=0, metavar="N", help="Only this copy.")] = None,
    patch: Annotated[
        str | None,
        typer.Option(
            "--patch", metavar="JSON|-|@FILE", help="A JSON Patch (an array), or the fields to change (an object)."
        ),
    ] = None,
    args: Annotated[
        str | None, typer.Option("--args", metavar="JSON|-|@FILE", help="All of the arguments anew.")
    ] = None,
    kind: Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Another kind.")] = None,
    replay: Annotated[bool, typer.Option("--replay", help="Let it run at once.")] = False,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Refuse what does not fit the kind.")] = True,
    catalogue: Annotated[str, typer.Option(metavar="MODULE:NAME", help="Where the kinds are.")] = CATALOGUE,
    because: Because = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Change the arguments of a dead letter: in $VISUAL or $EDITOR, by --patch, or with --args.

    The original stays until the broker has confirmed the changed one, which is the next copy of the same job.
    """
    if patch is not None and args is not None:
        raise UsageError("--patch and --args cannot be given together")
    if kind is not None and not is_kind(kind):
        raise UsageError(f"{kind!r} cannot be a kind")
    where = Filter(ids=frozenset((id,)), copy=copy)
    letter = the_one(look(Choice(where, queue), lambda letter, _: letter), id)
    body = _changed(letter, patch, args, kind)
    _check(kind or letter.kind, body, catalogue if check else None)
    difference = _difference(letter, body, kind)
    if difference and not dry_run:

        async def edit(dead: DeadLetters, _: Settings) -> None:
            await dead.edit(letter, body, kind, replay=replay, because=because)

        on_broker(edit)
    _tell(letter, difference, replay=replay, dry_run=dry_run, as_json=as_json)


def _changed(letter: DeadLetter, patch: str | None, args: str | None, kind: str | None) -> bytes:
    """The new body. Raises ``UsageError``, ``DecodeError``, ``TooLarge``."""
    body = letter.message.body
    if args is not None:
        body = read_body(args)
    elif patch is not None:
        body = _dumped(patched(_parsed(body, "the arguments"), _parsed(read_body(patch), "the patch")))
    elif kind is None:
        body = _edited(body)
    if len(body) > MAX_BODY:
        raise TooLarge(f"the arguments would be over {MAX_BODY} bytes")
    return body


def _check(kind: str, body: bytes, catalogue: str | None) -> None:
    if catalogue is None:
        json_object(body)
        return
    try:
        checked(kind, body, catalogue)
    except DecodeError:
        raise
    except Exception as error:
        error.args = (f"{error}; --no-check takes it all the same",)
        raise


def _edited(body: bytes) -> bytes:
    """*body* as the editor leaves it. What cannot be used stays in its file, for the next try."""
    before = _text(body)
    descriptor, name = tempfile.mkstemp(".json", "penstock-")
    file = Path(name)
    with os.fdopen(descriptor, "w") as written:
        written.write(before)
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.run([*shlex.split(editor), name], check=False).returncode
    except (OSError, ValueError) as error:
        file.unlink()
        raise UsageError(f"the editor {editor!r} cannot be run ({error}): set EDITOR, or use --patch") from None
    if code:
        raise UsageError(f"the editor {editor!r} ended with code {code}; nothing was changed, your text is in {name}")
    after = file.read_text("utf-8", "surrogateescape")
    if after == before:
        file.unlink()
        return body
    try:
        changed = _dumped(_parsed(after.encode("utf-8", "surrogateescape"), "the edited text"))
    except DecodeError as error:
        raise DecodeError(f"{error}; nothing was changed, your text is in {name}: --args @{name} takes it") from None
    file.unlink()
    return changed


def _parsed(body: bytes, what: str) -> Any:
    """*body* as JSON, whole numbers of any size kept. Raises ``DecodeError``."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DecodeError(f"{what} cannot be read as JSON: {reason}") from None


def _dumped(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except ValueError as error:  # half a character, or a number without end
        raise DecodeError(f"the arguments cannot be written as JSON: {error}") from None


def _text(body: bytes) -> str:
    """*body* for people to edit. Raises ``UsageError`` when it is no text."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False) + "\n"
    except (ValueError, RecursionError):
        pass
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise UsageError("the arguments are no text and cannot be edited: give them anew with --args") from None


def _difference(letter: DeadLetter, body: bytes, kind: str | None) -> list[str]:
    lines = [] if kind in (None, letter.kind) else [f"-kind {letter.kind}", f"+kind {kind}"]
    before, after = (_lines(content) for content in (letter.message.body, body))
    if before != after or (body != letter.message.body and not lines):
        lines += [line for line in unified_diff(before, after, lineterm="", n=1) if line[:3] not in ("---", "+++")]
    return lines or (["the spacing alone"] if body != letter.message.body else [])


def _lines(body: bytes) -> list[str]:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False).splitlines()
    except (ValueError, RecursionError):
        return body.decode("utf-8", "backslashreplace").splitlines()


def _tell(letter: DeadLetter, difference: list[str], *, replay: bool, dry_run: bool, as_json: bool) -> None:
    done = bool(difference) and not dry_run
    if as_json:
        facts = {"id": letter.id, "queue": letter.queue, "changed": done, "replayed": done and replay}
        typer.echo(orjson.dumps({**facts, "difference": [_harmless(line) for line in difference]}).decode())
        return
    for line in difference[:_CHANGED_LINES]:
        typer.echo(_harmless(line))
    if not difference:
        typer.echo("nothing to change")
    elif dry_run:
        typer.echo("would change this; nothing was done")
    else:
        where = "it runs again" if replay else f"it is the newest letter of {letter.queue}, copy {letter.copy + 1}"
        typer.echo(f"changed {printable(letter.id)}: {where}")


def _harmless(line: str) -> str:
    return printable(line.encode("utf-8", "backslashreplace").decode())
