"""Dead letters as lines of JSON (NDJSON): everything they hold, so that they can be kept in a file and put back."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any  # JSON and header values

from penstock.errors import UsageError
from penstock.letters import DeadLetter
from penstock.message import Message

#: What a header value that JSON has no word for is written as: an object with one of these names.
_BYTES, _TIME, _DECIMAL, _TABLE = "$bytes", "$time", "$decimal", "$table"
_MARKS = frozenset({_BYTES, _TIME, _DECIMAL, _TABLE})

_TEXTS = ("message_id", "type", "content_type", "content_encoding", "app_id", "correlation_id", "reply_to")


def line_of(letter: DeadLetter) -> str:
    """*letter* as one line: its queue, its body as text where it is text, its headers and properties."""
    message = letter.message
    try:
        body: Any = message.body.decode()
    except UnicodeDecodeError:
        body = {_BYTES: b64encode(message.body).decode()}
    properties = {
        field.name: getattr(message, field.name) for field in fields(message) if field.name not in ("body", "headers")
    }
    given = {name: value for name, value in properties.items() if value is not None}
    headers = {name: _written(value) for name, value in message.headers.items()}
    return json.dumps({"queue": letter.queue, **given, "body": body, "headers": headers}, ensure_ascii=True)


def read_line(line: str | bytes) -> tuple[str, Message]:
    """The queue and the message that a line of ``line_of`` tells of. Raises ``UsageError`` in one line."""
    try:
        found = json.loads(line)
        if not isinstance(found, dict):
            raise UsageError("it is no JSON object")
        body, headers = found.get("body"), found.get("headers")
        if not isinstance(found.get("queue"), str) or body is None or not isinstance(headers, dict):
            raise UsageError("it needs queue, body and headers")
        return found["queue"], _message(found, _bytes(body), headers)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise UsageError(f"not a dead letter of penstock dead export: {error}") from None


def _message(found: Mapping[str, Any], body: bytes, headers: Mapping[str, Any]) -> Message:
    for name in _TEXTS:
        if not isinstance(found.get(name), str | None):
            raise UsageError(f"{name} is no text")
    stamp = found.get("timestamp")
    if stamp is not None and type(stamp) is not int:
        raise UsageError("timestamp is no whole number")
    texts = {name: found.get(name) for name in _TEXTS}
    return Message(body, {name: _read(value) for name, value in headers.items()}, timestamp=stamp, **texts)


def _bytes(body: object) -> bytes:
    found = _read(body)
    if isinstance(found, str):
        return found.encode("utf-8", "surrogatepass")
    if isinstance(found, bytes):
        return found
    raise UsageError("body is neither text nor bytes")


def _written(value: object) -> object:
    match value:
        case bytes() | bytearray():
            return {_BYTES: b64encode(value).decode()}
        case datetime():
            return {_TIME: value.isoformat()}
        case Decimal():
            return {_DECIMAL: str(value)}
        case list():
            return [_written(item) for item in value]
        case dict():
            table = {str(name): _written(item) for name, item in value.items()}
            return {_TABLE: table} if _MARKS & table.keys() else table
        case None | bool() | int() | float() | str():
            return value
        case _:
            return repr(value)


def _read(value: object) -> object:
    match value:
        case {"$bytes": str(text), **rest} if not rest:
            return b64decode(text, validate=True)
        case {"$time": str(text), **rest} if not rest:
            when = datetime.fromisoformat(text)
            return when if when.tzinfo else when.replace(tzinfo=UTC)
        case {"$decimal": str(text), **rest} if not rest:
            return Decimal(text)
        case {"$table": dict(table), **rest} if not rest:
            return {name: _read(item) for name, item in table.items()}
        case dict():
            return {name: _read(item) for name, item in value.items()}
        case list():
            return [_read(item) for item in value]
        case _:
            return value
