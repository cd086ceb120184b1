"""The properties and headers of a message, to and from the payload of an AMQP content header."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any  # header values are whatever AMQP carried

from penstock.brokers.tables import MAX_SECONDS, decode_table, encode_field, encode_short
from penstock.errors import Unencodable
from penstock.headers import PUBLISHED, SEQ
from penstock.message import Message

_CONTENT = struct.Struct(">IQH")  # class and weight · body size · flags
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")
_SEQ = struct.Struct(">cQ")

_BASIC = 60 << 16
_PERSISTENT = b"\x02"
_SEQ_NAME = encode_short(SEQ, "header")

#: The header table of every first publish, in one step: when it was, and its number.
_FRESH_NAME = encode_short(PUBLISHED, "header")
_FRESH = struct.Struct(f">{len(_FRESH_NAME)}scq{len(_SEQ_NAME)}scQ")
_EPOCH_64 = 1 << 31  # below, an integer takes 32 bits

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_CORRELATION_ID, _REPLY_TO, _MESSAGE_ID, _TIMESTAMP, _TYPE, _APP_ID = 1 << 10, 1 << 9, 1 << 7, 1 << 6, 1 << 5, 1 << 3

#: The properties in their order on the wire: flag, attribute of ``Message`` (None: skipped), width in bytes or what.
_TEXT, _TABLE = -1, -2
_PROPERTIES: tuple[tuple[int, str | None, int], ...] = (
    (_CONTENT_TYPE, "content_type", _TEXT),
    (_CONTENT_ENCODING, "content_encoding", _TEXT),
    (_HEADERS, "headers", _TABLE),
    (_DELIVERY_MODE, None, 1),
    (1 << 11, None, 1),  # priority
    (_CORRELATION_ID, "correlation_id", _TEXT),
    (_REPLY_TO, "reply_to", _TEXT),
    (1 << 8, None, _TEXT),  # expiration
    (_MESSAGE_ID, "message_id", _TEXT),
    (_TIMESTAMP, "timestamp", 8),
    (_TYPE, "type", _TEXT),
    (1 << 4, None, _TEXT),  # user_id
    (_APP_ID, "app_id", _TEXT),
    (1 << 2, None, _TEXT),  # cluster_id
)

_CARBON_COPIES = frozenset({"CC", "BCC"})
_MAX_CACHED = 1024


def encode_content_header(message: Message, seq: int) -> bytes:
    """Return the payload: persistent, with *seq* as ``penstock-seq``. Raises ``Unencodable``, naming the field."""
    flags = _HEADERS | _DELIVERY_MODE
    before: list[bytes] = []
    after: list[bytes] = []
    if message.content_type is not None:
        flags |= _CONTENT_TYPE
        before.append(_repeated(message.content_type))
    if message.content_encoding is not None:
        flags |= _CONTENT_ENCODING
        before.append(_repeated(message.content_encoding))
    if message.correlation_id is not None:
        flags |= _CORRELATION_ID
        after.append(encode_short(message.correlation_id, "correlation_id"))
    if message.reply_to is not None:
        flags |= _REPLY_TO
        after.append(encode_short(message.reply_to, "reply_to"))
    if message.message_id is not None:
        flags |= _MESSAGE_ID
        after.append(encode_short(message.message_id, "message_id"))
    if message.timestamp is not None:
        flags |= _TIMESTAMP
        after.append(_encode_timestamp(message.timestamp))
    if message.type is not None:
        flags |= _TYPE
        after.append(_repeated(message.type))
    if message.app_id is not None:
        flags |= _APP_ID
        after.append(_repeated(message.app_id))
    table = _encode_headers(message.headers, seq)
    head = _CONTENT.pack(_BASIC, len(message.body), flags)
    return b"".join((head, *before, _U32.pack(len(table)), table, _PERSISTENT, *after))


def renumber(header: bytes, seq: int) -> bytes:
    """Return what ``encode_content_header`` made, with another *seq*: the last eight bytes of its header table."""
    flags, at = _flags(header)
    for _, width in _layout(flags):
        if width == _TABLE:
            break
        at += 1 + header[at]
    end = at + _U32.size + _U32.unpack_from(header, at)[0]
    return header[: end - _U64.size] + _U64.pack(seq) + header[end:]


def decode_message(header: bytes, body: bytes) -> Message:
    """Build a message from the payload of its content header. Never raises; what cannot be read is None."""
    message = Message(body, content_type=None)
    flags, at = _flags(header)
    end = len(header)
    for name, width in _layout(flags):
        if width == _TEXT:
            start, size = at + 1, header[at] if at < end else end
        elif width == _TABLE:
            start, size = at + 4, _U32.unpack_from(header, at)[0] if at + 4 <= end else end
        else:
            start, size = at, width
        at = start + size
        if at > end:
            break
        if name is not None:
            setattr(message, name, _decode_property(width, header, start, at))
    return message


def body_size(header: bytes) -> int:
    """How many bytes of body follow a content header."""
    return int(_U64.unpack_from(header, 4)[0])


def seq_of(header: bytes) -> int | None:
    """Read the ``penstock-seq`` of a returned message."""
    seq = decode_message(header, b"").headers.get(SEQ)
    return seq if isinstance(seq, int) else None


def _encode_headers(headers: Mapping[str, Any], seq: int) -> bytes:
    if not _CARBON_COPIES.isdisjoint(headers):
        _check_carbon_copies(headers)
    published = headers.get(PUBLISHED)
    if len(headers) == 1 and type(published) is int and _EPOCH_64 <= published < 1 << 63:
        return _FRESH.pack(_FRESH_NAME, b"l", published, _SEQ_NAME, b"l", seq)
    fields = [_name(name) + encode_field(headers, name) for name in headers if name != SEQ]
    fields.append(_SEQ_NAME + _SEQ.pack(b"l", seq))
    return b"".join(fields)


def _check_carbon_copies(headers: Mapping[str, Any]) -> None:
    """The broker closes the channel on everybody (406) when these are no lists."""
    for name in _CARBON_COPIES & headers.keys():
        if not isinstance(headers[name], list):
            raise Unencodable(f"header {name!r} must be a list of routing keys")


def _encode_timestamp(seconds: int) -> bytes:
    if not isinstance(seconds, int) or not 0 <= seconds < 1 << 64:
        raise Unencodable(f"timestamp {seconds!r} is not a number of seconds since 1970")
    return _U64.pack(seconds)


@lru_cache(_MAX_CACHED)
def _name(name: str) -> bytes:
    return encode_short(name, "a header's name")


@lru_cache(_MAX_CACHED)
def _repeated(text: str) -> bytes:
    """Encode a property that few values repeat in: kind, producer, content type."""
    return encode_short(text, "type, app_id, content_type or content_encoding")


@lru_cache(_MAX_CACHED)
def _layout(flags: int) -> tuple[tuple[str | None, int], ...]:
    return tuple((name, width) for flag, name, width in _PROPERTIES if flags & flag)


def _flags(header: bytes) -> tuple[int, int]:
    """Read the property flags and where the properties begin; further flag words say nothing we know."""
    if len(header) < _CONTENT.size:
        return 0, len(header)
    (flags,) = _U16.unpack_from(header, 12)
    at, more = 14, flags & 1
    while more and at + 2 <= len(header):
        more = header[at + 1] & 1
        at += 2
    return flags, at


def _decode_property(width: int, data: bytes, start: int, end: int) -> Any:
    if width == _TABLE:
        return decode_table(data, start, end)
    if width == _TEXT:
        try:
            return data[start:end].decode()
        except UnicodeDecodeError:
            return None
    seconds = _U64.unpack_from(data, start)[0]
    return seconds if seconds <= MAX_SECONDS else None
