"""``penstock dead``: what could not be done, looked at; ``dead_moves`` and ``dead_edit`` put it right."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any  # audit entries are JSON

import orjson
import typer

from penstock.cli import dead_edit, dead_files, dead_moves
from penstock.cli.letter_choice import Choice, QueueOption, chosen, each, look, no_letter, on_broker
from penstock.cli.letter_view import (
    group_row,
    plain,
    plain_group,
    plain_story,
    row,
    show_groups,
    show_rows,
    story,
)
from penstock.cli.storing import AsJson, show_columns
from penstock.dead_letters import DeadLetters
from penstock.letter_groups import Groups
from penstock.letters import DeadLetter, Filter
from penstock.printable import printable
from penstock.settings import Settings
from penstock.topology.names import AUDIT

_EXAMPLES = """
\b
Examples:
  penstock dead groups                             what they died of, the most frequent first
  penstock dead list --group 1f0c9a27 --newer-than 1h
  penstock dead show 01a209f2-8588-7f54-ae89-1abf246d6430
  penstock dead edit 01a209f2-8588-7f54-ae89-1abf246d6430 --patch '{"to": "ada@example.org"}' --replay
  penstock dead replay --group 1f0c9a27 --canary 5 --rate 100
  penstock dead discard --queue email --older-than 30d --because "customer left"
"""

app = typer.Typer(
    help="Look at dead letters, and put them right. Looking changes nothing.",
    epilog=_EXAMPLES,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
)


@app.command("groups")
@chosen
def groups_command(choice: Choice, as_json: AsJson = False) -> None:
    """Count dead letters by what they died of: reason, class of error, message without its particulars, and place."""

    async def count(dead: DeadLetters, settings: Settings) -> Groups:
        groups = Groups()
        async for letter in each(dead, choice, settings):
            groups.add(letter)
        return groups

    found = on_broker(count).largest_first
    if as_json:
        typer.echo(_dumps([plain_group(group) for group in found]))
        return
    show_groups([group_row(group) for group in found])
    typer.echo(
        f"{sum(group.count for group in found)} dead letters in {len(found)} group{'' if len(found) == 1 else 's'}"
    )


@app.command("list")
@chosen
def list_command(choice: Choice, as_json: AsJson = False) -> None:
    """List dead letters, the oldest of each queue first."""
    if as_json:
        typer.echo(_dumps(look(choice, lambda letter, _: plain(letter))))
        return
    rows = look(choice, lambda letter, _: row(letter))
    show_rows(rows)
    typer.echo(f"{len(rows)} dead letters")


@app.command("show")
def show_command(
    id: Annotated[str, typer.Argument(metavar="ID", help="The job's id.")],  # noqa: A002
    queue: QueueOption = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show secrets too, and what PENSTOCK_REDACT names.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show everything a dead letter tells: arguments, error, traceback, history, headers."""
    choice = Choice(Filter(ids=frozenset((id,))), queue)
    view = partial(_whole, reveal=reveal, as_json=as_json)
    found = look(choice, view)
    if not found:
        raise no_letter(id)
    typer.echo(_dumps(found) if as_json else "\n".join(map(str, found)))


@app.command("audit")
def audit_command(
    limit: Annotated[int, typer.Option("--limit", min=1, metavar="N", help="The newest so many entries.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Show who did what to dead letters, the newest last: the queue jobs.dead.audit, which keeps 10,000 entries."""

    async def read(dead: DeadLetters, _: Settings) -> list[dict[str, Any]]:
        newest: deque[dict[str, Any]] = deque(maxlen=limit)
        async with aclosing(dead.look(AUDIT)) as entries:
            async for entry in entries:
                newest.append(_entry(entry))
        return list(newest)

    found = on_broker(read)
    if as_json:
        typer.echo(_dumps(found))
        return
    show_columns(
        ("when", "who", "did", "queue", "letters", "filter", "because"), [_audit_row(entry) for entry in found]
    )
    typer.echo(f"{len(found)} entries")


def _whole(letter: DeadLetter, settings: Settings, *, reveal: bool, as_json: bool) -> object:
    hidden = None if reveal else settings.redacted_names
    return plain_story(letter, hidden) if as_json else story(letter, hidden)


def _entry(letter: DeadLetter) -> dict[str, Any]:
    """What an entry says; one that nobody of ours wrote is told as it is."""
    try:
        found = orjson.loads(letter.message.body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"unreadable": repr(letter.message.body[:200])}


def _audit_row(entry: dict[str, Any]) -> tuple[str, ...]:
    did = f"{entry.get('action', '?')} {entry.get('stage', '')}".strip()
    where = entry.get("filter")
    filter_ = " ".join(map(_asked, where.items())) if isinstance(where, dict) else ""
    told = (entry.get("when", "-"), entry.get("who", "-"), did, entry.get("queue", "-"), entry.get("count", "-"))
    return tuple(printable(str(cell))[:200] for cell in (*told, filter_ or "-", _why(entry)))


def _asked(condition: tuple[str, Any]) -> str:
    name, value = condition
    return f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"


def _why(entry: dict[str, Any]) -> str:
    words = [str(entry[name]) for name in ("because", "stopped", "unreadable") if entry.get(name)]
    return "; ".join(words) or "-"


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


for module in (dead_moves, dead_edit, dead_files):
    module.add_to(app)
