"""AMQP field tables as Python values: encoded strictly, decoded tolerantly, for what comes in is anybody's bytes."""

from __future__ import annotations

import decimal
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any  # table values are whatever AMQP can carry

from penstock.errors import Unencodable

#: Tables and arrays nested deeper than this are skipped when read and refused when written.
MAX_DEPTH = 32
#: The last second of the year 9999; a later timestamp (often one in milliseconds) cannot be a date and reads as None.
MAX_SECONDS = 253_402_300_799
MAX_SHORT = 255

_U32 = struct.Struct(">I")
_TAGGED_I32 = struct.Struct(">ci")
_TAGGED_I64 = struct.Struct(">cq")
_TAGGED_U64 = struct.Struct(">cQ")
_TAGGED_DOUBLE = struct.Struct(">cd")
_TAGGED_DECIMAL = struct.Struct(">cBi")
_TAGGED_U32 = struct.Struct(">cI")
_DECIMAL = struct.Struct(">Bi")
_U64 = struct.Struct(">Q")

_TABLE, _ARRAY, _TEXT, _BYTES = b"FASx"

_UNREADABLE = -1


def _number(layout: str) -> tuple[int, Callable[[bytes, int], Any]]:
    reader = struct.Struct(layout)
    return reader.size, lambda data, at: reader.unpack_from(data, at)[0]


def _timestamp(data: bytes, at: int) -> datetime | None:
    (seconds,) = _U64.unpack_from(data, at)
    return datetime.fromtimestamp(seconds, UTC) if seconds <= MAX_SECONDS else None


def _decimal(data: bytes, at: int) -> decimal.Decimal:
    scale, raw = _DECIMAL.unpack_from(data, at)
    return decimal.Decimal(raw).scaleb(-scale)


#: The values of fixed width: type octet → (bytes, reader). RabbitMQ's dialect, in which ``s`` is a short number and
#: both ``l`` and ``L`` are signed: https://www.rabbitmq.com/amqp-0-9-1-errata.html#section_3
_FIXED: dict[int, tuple[int, Callable[[bytes, int], Any]]] = {
    ord("t"): (1, lambda data, at: data[at] != 0),
    ord("b"): _number(">b"),
    ord("B"): _number(">B"),
    ord("s"): _number(">h"),
    ord("U"): _number(">h"),
    ord("u"): _number(">H"),
    ord("I"): _number(">i"),
    ord("i"): _number(">I"),
    ord("l"): _number(">q"),
    ord("L"): _number(">q"),
    ord("f"): _number(">f"),
    ord("d"): _number(">d"),
    ord("D"): (5, _decimal),
    ord("T"): (8, _timestamp),
    ord("V"): (0, lambda *_: None),
}


def decode_table(data: bytes, start: int, stop: int, depth: int = 0) -> dict[str, Any]:
    """Read the fields between *start* and *stop*. Never raises and never reads beyond *stop*.

    A value that cannot be read becomes None by its length on the wire; text that is not UTF-8 stays bytes; a field
    whose name is not UTF-8 is left out. From a field of unknown type or impossible length on, the rest is lost.
    """
    table: dict[str, Any] = {}
    at = start
    while at < stop:
        name_at, at = at + 1, at + 1 + data[at]
        if at >= stop:
            break
        value, end = _decode_value(data, at, stop, depth)
        if end == _UNREADABLE:
            break
        name = _name(data[name_at:at])
        if name is not None:
            table[name] = value
        at = end
    return table


@lru_cache(1024)
def _name(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _decode_array(data: bytes, start: int, stop: int, depth: int) -> list[Any]:
    array: list[Any] = []
    at = start
    while at < stop:
        value, at = _decode_value(data, at, stop, depth)
        if at == _UNREADABLE:
            break
        array.append(value)
    return array


def _decode_value(data: bytes, at: int, stop: int, depth: int) -> tuple[Any, int]:
    """Read the value whose type octet is at *at*; return it and where it ends, or ``_UNREADABLE`` for the end."""
    kind = data[at]
    at += 1
    fixed = _FIXED.get(kind)
    if fixed is not None:
        size, read = fixed
        return (read(data, at), at + size) if at + size <= stop else (None, _UNREADABLE)
    if kind not in (_TEXT, _BYTES, _TABLE, _ARRAY) or at + 4 > stop:
        return None, _UNREADABLE
    (size,) = _U32.unpack_from(data, at)
    at += 4
    end = at + size
    if end > stop:
        return None, _UNREADABLE
    return _decode_sized(kind, data, at, end, depth), end


def _decode_sized(kind: int, data: bytes, at: int, end: int, depth: int) -> Any:
    if kind == _TEXT:
        raw = data[at:end]
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return raw
    if kind == _BYTES:
        return data[at:end]
    if depth >= MAX_DEPTH:
        return None
    if kind == _TABLE:
        return decode_table(data, at, end, depth + 1)
    return _decode_array(data, at, end, depth + 1)


def encode_short(text: str, what: str) -> bytes:
    """Encode *text* as a short string. Raises ``Unencodable``, naming *what* it is, over 255 bytes or not Unicode."""
    try:
        raw = text.encode()
    except (UnicodeEncodeError, AttributeError) as error:
        raise Unencodable(f"{what} is not valid text: {error}") from error
    if len(raw) > MAX_SHORT:
        raise Unencodable(f"{what} is {len(raw)} bytes long; AMQP carries at most {MAX_SHORT}")
    return bytes((len(raw),)) + raw


def encode_table(table: Mapping[str, Any], depth: int = 0) -> bytes:
    """Encode the fields of *table*, without the length in front. Raises ``Unencodable``, naming the field."""
    return b"".join([encode_short(name, "a header's name") + encode_field(table, name, depth) for name in table])


def encode_field(table: Mapping[str, Any], name: str, depth: int = 0) -> bytes:
    """Encode the value of *name* with its type octet. Raises ``Unencodable``, naming the field."""
    try:
        return _encode_value(table[name], depth)
    except Unencodable as error:
        raise Unencodable(f"header {name!r}: {error}") from error


def _encode_value(value: Any, depth: int) -> bytes:
    encode = _SCALARS.get(type(value))
    if encode is not None:
        return encode(value)
    if isinstance(value, Mapping | list | tuple):
        return _encode_nested(value, depth + 1)
    for kind, encode in _SCALARS.items():
        if isinstance(value, kind):
            return encode(value)
    raise Unencodable(f"AMQP cannot carry a value of type {type(value).__name__}")


def _encode_nested(value: Mapping[str, Any] | Sequence[Any], depth: int) -> bytes:
    if depth > MAX_DEPTH:
        raise Unencodable(f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return _sized(b"F", encode_table(value, depth))
    return _sized(b"A", b"".join([_encode_value(item, depth) for item in value]))


def _sized(kind: bytes, raw: bytes | bytearray) -> bytes:
    return _TAGGED_U32.pack(kind, len(raw)) + raw


def _encode_text(value: str) -> bytes:
    try:
        return _sized(b"S", value.encode())
    except UnicodeEncodeError as error:
        raise Unencodable(f"not valid text: {error}") from error


def _encode_int(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return _TAGGED_I32.pack(b"I", value)
    if -(1 << 63) <= value < 1 << 63:
        return _TAGGED_I64.pack(b"l", value)
    raise Unencodable("a whole number beyond 64 bits")


def _encode_decimal(value: decimal.Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or not -MAX_SHORT <= exponent <= MAX_SHORT:
        raise Unencodable("a decimal number beyond AMQP's range")
    raw = int("".join(map(str, digits))) * 10 ** max(exponent, 0) * (-1 if sign else 1)
    if not -(1 << 31) <= raw < 1 << 31:
        raise Unencodable("a decimal number with more digits than AMQP has")
    return _TAGGED_DECIMAL.pack(b"D", max(-exponent, 0), raw)


def _encode_datetime(value: datetime) -> bytes:
    """Encode an instant, to the second; one without a zone is taken as UTC."""
    aware = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
    seconds = int(aware.timestamp())
    if seconds < 0:
        raise Unencodable("an instant before 1970")
    return _TAGGED_U64.pack(b"T", seconds)


#: By type; ``bool`` stands before ``int``, whose subclass it is.
_SCALARS: dict[type, Callable[[Any], bytes]] = {
    str: _encode_text,
    bool: lambda value: b"t\x01" if value else b"t\x00",
    int: _encode_int,
    type(None): lambda _: b"V",
    float: lambda value: _TAGGED_DOUBLE.pack(b"d", value),
    bytes: lambda value: _sized(b"x", value),
    bytearray: lambda value: _sized(b"x", value),
    datetime: _encode_datetime,
    decimal.Decimal: _encode_decimal,
}
