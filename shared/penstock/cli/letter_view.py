"""How dead letters look: in a row each, with their whole story, as JSON; harmless, whatever they hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any  # letters as JSON

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.letters import DeadLetter
from penstock.printable import printable, printable_lines, shortened

_MAX_BODY = 4000
_MAX_LINE = 240

Row = tuple[str, str, str, str, str, str]

_COLUMNS = ("died", "queue", "kind", "id", "reason", "error")


def row(letter: DeadLetter) -> Row:
    """What a list tells of *letter*: when, where, what, which, why, how."""
    return (
        instant(letter.died) or "-",
        letter.queue,
        printable(letter.kind) or "-",
        printable(letter.id) or "-",
        printable(letter.reason) or "-",
        shortened(printable(_error(letter)), _MAX_LINE),
    )


def show_rows(rows: Sequence[Row]) -> None:
    """Print *rows*: a table for a terminal, else a line each, cut to a readable length."""
    console = Console(soft_wrap=False)
    if not console.is_terminal:
        for cells in rows:
            typer.echo(shortened("  ".join(cells).rstrip(), _MAX_LINE))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, overflow="fold", no_wrap=name in ("died", "reason"))
    for cells in rows:
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def story(letter: DeadLetter) -> str:
    """Everything *letter* tells, in lines."""
    facts = {
        "id": letter.id,
        "kind": letter.kind,
        "queue": letter.queue,
        "reason": letter.reason,
        "error": _error(letter),
        "died": instant(letter.died),
        "published": instant(letter.published),
        "attempt": str(letter.attempt),
        "copy": str(letter.copy),
        "worker": letter.worker,
    }
    lines = [f"{name:<10} {printable(value)}" for name, value in facts.items() if value]
    lines += [f"history    {printable(line)}" for line in letter.history]
    lines += ["", "arguments", *_indented(_arguments(letter.message.body))]
    if letter.traceback:
        lines += ["", "traceback", *_indented(letter.traceback)]
    return "\n".join([*lines, ""])


def plain(letter: DeadLetter, *, whole: bool = False) -> dict[str, Any]:
    """*letter* as JSON values; *whole* adds body, headers, history and traceback."""
    names = ("queue", "id", "kind", "reason", "error_type", "error", "attempt", "copy", "worker")
    facts: dict[str, Any] = {name: getattr(letter, name) for name in names}
    facts |= {"died": instant(letter.died), "published": instant(letter.published)}
    if whole:
        headers = {name: _jsonable(value) for name, value in letter.message.headers.items()}
        history = list(letter.history)
        body = _arguments(letter.message.body)
        facts |= {"traceback": letter.traceback, "history": history, "arguments": body, "headers": headers}
    return facts


def instant(ms: int | None) -> str | None:
    """Milliseconds since 1970 as UTC in ISO 8601."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


def _error(letter: DeadLetter) -> str:
    return f"{letter.error_type}: {letter.error}" if letter.error_type else letter.error


def _arguments(body: bytes) -> str:
    """The arguments, indented where they are JSON; otherwise the first bytes, spelled out where they are no text."""
    if len(body) <= _MAX_BODY:
        try:
            # Python's own parser: it keeps whole numbers of any size, where orjson makes them floats.
            return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            pass
    text = body[:_MAX_BODY].decode("utf-8", "backslashreplace")
    more = len(body) - _MAX_BODY
    return text + (f" … and {more} bytes more" if more > 0 else "")


def _jsonable(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float) else repr(value)


def _indented(text: str) -> Iterable[str]:
    return (f"  {line}" for line in printable_lines(text).split("\n"))
