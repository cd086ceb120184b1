"""How dead letters look: in a row each, with their whole story, as JSON; harmless, whatever they hold."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any  # letters as JSON

from penstock import headers as h
from penstock.cli.storing import show_columns
from penstock.letter_groups import Group
from penstock.letters import DeadLetter
from penstock.printable import printable, printable_lines, shortened
from penstock.redaction import redacted, without_logins

_MAX_BODY = 4000
_MAX_LINE = 240
_MAX_ERROR = 2000

Row = tuple[str, ...]

_COLUMNS = ("died", "queue", "kind", "id", "reason", "error")
_GROUP_COLUMNS = ("letters", "group", "first", "last", "kinds", "reason", "error", "in")
_WHOLE = ("died", "reason", "letters", "group", "first", "last")


def row(letter: DeadLetter) -> Row:
    """What a list tells of *letter*: when, where, what, which, why, how."""
    return (
        instant(letter.died) or "-",
        letter.queue,
        printable(letter.kind) or "-",
        printable(letter.id) or "-",
        printable(letter.reason) or "-",
        shortened(printable(_error(letter)[:_MAX_ERROR]), _MAX_LINE),
    )


def show_rows(rows: Sequence[Row]) -> None:
    """Print rows of ``row``."""
    show_columns(_COLUMNS, rows, whole=_WHOLE)


def group_row(group: Group) -> Row:
    """What a list tells of *group*: how many, which, since when, until when, of what, why, how and where."""
    print_ = group.fingerprint
    error = f"{print_.error_type}: {print_.message}" if print_.error_type else print_.message
    return (
        str(group.count),
        group.id or "-",
        instant(group.first) or "-",
        instant(group.last) or "-",
        printable(",".join(group.kinds)) or "-",
        printable(print_.reason) or "-",
        printable(error) or "-",
        printable(print_.frame) or "-",
    )


def show_groups(rows: Sequence[Row]) -> None:
    """Print rows of ``group_row``."""
    show_columns(_GROUP_COLUMNS, rows, whole=_WHOLE)


def plain_group(group: Group) -> dict[str, Any]:
    """*group* as JSON values."""
    print_ = group.fingerprint
    return {
        "group": group.id or None,
        "count": group.count,
        "first": instant(group.first),
        "last": instant(group.last),
        "reason": print_.reason,
        "error_type": print_.error_type,
        "message": print_.message,
        "frame": print_.frame,
        "kinds": group.kinds,
        "queues": group.queues,
        "ids": group.ids,
    }


def story(letter: DeadLetter, hidden: Collection[str] | None = frozenset()) -> str:
    """Everything *letter* tells, in lines, without secrets and the fields called as *hidden*; None hides nothing."""
    facts = {
        "id": letter.id,
        "kind": letter.kind,
        "queue": letter.queue,
        "reason": letter.reason,
        "error": _safe(_error(letter)[:_MAX_ERROR], hidden),
        "group": letter.fingerprint.id,
        "died": instant(letter.died),
        "published": instant(letter.published),
        "attempt": str(letter.attempt),
        "copy": str(letter.copy),
        "replays": str(letter.replays or ""),
        "worker": letter.worker,
    }
    lines = [f"{name:<10} {printable(value)}" for name, value in facts.items() if value]
    lines += [f"history    {printable(_safe(line, hidden))}" for line in letter.history]
    lines += ["", "arguments", *_indented(_arguments(letter.message.body, hidden))]
    if headers := _foreign_headers(letter, hidden):
        lines += ["", "headers", *(f"  {printable(shortened(f'{name}: {value}', 500))}" for name, value in headers)]
    if letter.traceback:
        lines += ["", "traceback", *_indented(_safe(letter.traceback, hidden))]
    return "\n".join([*lines, ""])


def plain(letter: DeadLetter) -> dict[str, Any]:
    """What a list tells of *letter*, as JSON values."""
    names = ("queue", "id", "kind", "reason", "error_type", "error", "attempt", "copy", "replays", "worker")
    facts: dict[str, Any] = {name: getattr(letter, name) for name in names}
    return facts | {"died": instant(letter.died), "published": instant(letter.published)}


def plain_story(letter: DeadLetter, hidden: Collection[str] | None = frozenset()) -> dict[str, Any]:
    """Everything *letter* tells, as JSON values: ``plain``, the arguments as text, headers, history and traceback."""
    headers = {name: _jsonable(value) for name, value in _shown(letter.message.headers, hidden).items()}
    facts = plain(letter)
    return facts | {
        "error": _safe(letter.error, hidden),
        "group": letter.fingerprint.id,
        "traceback": _safe(letter.traceback, hidden),
        "history": [_safe(line, hidden) for line in letter.history],
        "arguments": _arguments(letter.message.body, hidden),
        "headers": headers,
    }


def instant(ms: int | None) -> str | None:
    """Milliseconds since 1970 as UTC in ISO 8601."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


def _error(letter: DeadLetter) -> str:
    return f"{letter.error_type}: {letter.error}" if letter.error_type else letter.error


def _safe(text: str, hidden: Collection[str] | None) -> str:
    return text if hidden is None else without_logins(text)


def _shown(value: Any, hidden: Collection[str] | None) -> Any:
    return value if hidden is None else redacted(value, hidden)


def _foreign_headers(letter: DeadLetter, hidden: Collection[str] | None) -> list[tuple[str, object]]:
    """The headers that are not ours, which the story tells of already, nor the broker's own."""
    headers = _shown(letter.message.headers, hidden)
    return [(name, value) for name, value in headers.items() if not name.startswith((h.PREFIX, "x-"))]


def _arguments(body: bytes, hidden: Collection[str] | None) -> str:
    """The arguments, indented where they are JSON; otherwise the first bytes, spelled out where they are no text."""
    try:
        # Python's own parser: it keeps whole numbers of any size, where orjson makes them floats.
        text = json.dumps(_shown(json.loads(body), hidden), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = body[: 4 * _MAX_BODY].decode("utf-8", "backslashreplace")
        return _cut(_safe(text, hidden), len(body))
    return _cut(text.encode("utf-8", "backslashreplace").decode(), len(text))  # JSON may hold half a character


def _cut(text: str, size: int) -> str:
    return text if size <= _MAX_BODY else f"{text[:_MAX_BODY]} … and {size - _MAX_BODY} bytes more"


def _jsonable(value: object) -> object:
    return value if value is None or isinstance(value, str | int | float) else repr(value)


def _indented(text: str) -> Iterable[str]:
    return (f"  {line}" for line in printable_lines(text).split("\n"))
