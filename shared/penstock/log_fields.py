"""The fields of a log line, made fit to be kept: secrets out, control characters spelled, everything bounded."""

from __future__ import annotations

from collections.abc import Mapping, Set
from datetime import date, timedelta
from typing import Any  # log lines carry values of any type
from uuid import UUID

from structlog.typing import EventDict, WrappedLogger

from penstock.printable import printable, printable_lines, shortened
from penstock.redaction import REDACTED, is_secret, without_logins

#: Characters of one text and of one traceback, fields of a line, items of a collection, collections in collections.
MAX_TEXT = 4_000
MAX_LINES = 16_000
MAX_FIELDS = 100
MAX_ITEMS = 100
MAX_DEPTH = 5

_MULTILINE = frozenset({"exception", "stack"})
#: What structlog itself needs on the way, and what every line has.
_INTERNAL = frozenset({"_record", "_from_structlog"})
_OURS = _INTERNAL | {
    "event",
    "level",
    "logger",
    "timestamp",
    "job_id",
    "kind",
    "queue",
    "attempt",
    "trace_id",
    "span_id",
}
_PLAIN = (bool, float, date, UUID, type(None))


def harmless(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """A structlog processor: *line* as it may be written. Never raises, whatever the values are.

    What came from outside cannot move the cursor, forge a line, break the encoding, fill the disk, or give a secret
    away that its name or an address tells of.
    """
    kept = list(line) if len(line) <= MAX_FIELDS else [*(_OURS & line.keys()), *[n for n in line if n not in _OURS]]
    return {_name(name): _field(name, line[name]) for name in kept[:MAX_FIELDS]}


def _field(name: object, value: Any) -> Any:
    if name in _INTERNAL:
        return value
    if name in _MULTILINE and isinstance(value, str):
        return printable_lines(without_logins(_middle_out(value, MAX_LINES)))
    return _value(name, value, MAX_DEPTH)


def _value(name: object, value: Any, depth: int) -> Any:
    if value is not None and not isinstance(value, bool) and is_secret(str(name)[:200]):
        return REDACTED
    return _clean(value, depth)


def _clean(value: Any, depth: int) -> Any:
    match value:
        case str():
            return _text(value)
        case int() if not isinstance(value, bool):
            return value if -(1 << 63) <= value < 1 << 63 else shortened(f"{value:#x}", 80)  # JSON writers take no more
        case _ if isinstance(value, _PLAIN):
            return value
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray():
            return f"<{len(value)} bytes>"
        case _ if depth <= 0:
            return "…"
        case Mapping():
            return {_name(name): _value(name, item, depth - 1) for name, item in _some(value.items())}
        case list() | tuple() | Set():
            return [_clean(item, depth - 1) for item in _some(value)]
        case _:
            return _text(_spelled(value))


def _some(items: Any) -> list[Any]:
    """The first of *items*, without going through all of them."""
    return [item for item, _ in zip(items, range(MAX_ITEMS), strict=False)]


def _name(name: object) -> str:
    return printable(shortened(name if isinstance(name, str) else _spelled(name), 200))


def _text(text: str) -> str:
    return printable(without_logins(shortened(text, MAX_TEXT)))


def _spelled(value: object) -> str:
    try:
        return repr(value)
    except Exception as broken:  # noqa: BLE001 - a foreign __repr__ may raise anything; the line is still wanted
        return f"<{type(value).__name__} that cannot be spelled: {type(broken).__name__}>"


def _middle_out(text: str, limit: int) -> str:
    """*text* with its middle left out: a traceback's first and last lines say the most."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n… {len(text) - limit} characters left out …\n{text[-limit // 2 :]}"
