"""AMQP frames of the two hot paths, by hand: publishes and acks out, deliveries, returns and confirms in."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any  # header values are whatever AMQP carried

from penstock.brokers.properties import decode_message, encode_content_header, renumber
from penstock.brokers.tables import encode_short
from penstock.errors import TooLarge
from penstock.message import Delivery, Message

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = b"\xce"

#: What a frame costs besides its payload: type, channel, size and end octet.
OVERHEAD = 8

#: Class and method of what is read here; a method's payload begins with them.
DELIVER = b"\x00\x3c\x00\x3c"
RETURN = b"\x00\x3c\x00\x32"
ACK = b"\x00\x3c\x00\x50"
NACK = b"\x00\x3c\x00\x78"

_PREFIX = struct.Struct(">BHI")
_ANSWER = struct.Struct(">BHI4sQBB")
_ANSWER_SIZE = 13
_CONFIRM = struct.Struct(">QB")
_U64 = struct.Struct(">Q")

_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_MANDATORY = b"\x01"
_MULTIPLE, _REQUEUE = 1, 2

_MAX_CACHED = 1024


class PublishEncoder:
    """Encodes publishes for one channel: persistent, mandatory, numbered in the header ``penstock-seq``."""

    def __init__(self, channel: int, frame_max: int) -> None:
        self._channel = channel
        self._payload_max = frame_max - OVERHEAD
        self._methods: dict[tuple[str, str], bytes] = {}

    def encode(self, message: Message, exchange: str, key: str, seq: int) -> tuple[bytes, ...]:
        """Return the frames, in pieces to be joined. Raises ``TooLarge`` and ``Unencodable``."""
        method = self._methods.get((exchange, key)) or self._method(exchange, key)
        header = encode_content_header(message, seq)
        size = len(message.body)
        if len(header) > self._payload_max:
            # A content header cannot be split over frames; the broker would close the connection (501).
            raise TooLarge(f"properties and headers take {len(header)} bytes; a frame holds {self._payload_max}")
        head = _PREFIX.pack(HEADER, self._channel, len(header))
        if not size:
            return method, head, header, FRAME_END
        if size > self._payload_max:
            return method, head, header, FRAME_END, *self._split(message.body)
        return method, head, header, FRAME_END + _PREFIX.pack(BODY, self._channel, size), message.body, FRAME_END

    def renumber(self, pieces: tuple[bytes, ...], seq: int) -> tuple[bytes, ...]:
        """Return the frames of a publish that was not sent, under another number."""
        method, head, header, *body = pieces
        return method, head, renumber(header, seq), *body

    def _method(self, exchange: str, key: str) -> bytes:
        names = encode_short(exchange, "the exchange") + encode_short(key, "the routing key")
        frame = encode_frame(METHOD, self._channel, _PUBLISH + names + _MANDATORY)
        if len(self._methods) >= _MAX_CACHED:
            self._methods.clear()
        self._methods[exchange, key] = frame
        return frame

    def _split(self, body: bytes) -> list[bytes]:
        step = self._payload_max
        return [encode_frame(BODY, self._channel, body[at : at + step]) for at in range(0, len(body), step)]


class DeliveryDecoder:
    """Reads ``basic.deliver`` for one queue. Exchange and key are decoded once per distinct pair."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._origins: dict[bytes, tuple[str, str]] = {}

    def decode(self, method: bytes, header: bytes, body: bytes) -> Delivery:
        """Build the delivery from the payloads of its frames. Never raises for what a producer put into them."""
        at = 5 + method[4]  # after the consumer's tag
        (tag,) = _U64.unpack_from(method, at)
        exchange, key = self._origin(method[at + 9 :])
        message = decode_message(header, body)
        redelivered = bool(method[at + 8] & 1)
        return Delivery(message, self._queue, exchange, key, tag, redelivered, _deliveries(message.headers))

    def _origin(self, raw: bytes) -> tuple[str, str]:
        known = self._origins.get(raw)
        if known is not None:
            return known
        exchange, end = _lenient(raw, 0)
        key, _ = _lenient(raw, end)
        if len(self._origins) >= _MAX_CACHED:
            self._origins.clear()
        self._origins[raw] = exchange, key
        return exchange, key


def encode_frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return one frame."""
    return _PREFIX.pack(kind, channel, len(payload)) + payload + FRAME_END


def encode_ack(channel: int, tag: int, multiple: bool) -> bytes:
    """Return a ``basic.ack`` frame; *multiple* means every delivery up to *tag*."""
    return _ANSWER.pack(METHOD, channel, _ANSWER_SIZE, ACK, tag, _MULTIPLE if multiple else 0, FRAME_END[0])


def encode_nack(channel: int, tag: int, requeue: bool) -> bytes:
    """Return a ``basic.nack`` frame for one delivery."""
    return _ANSWER.pack(METHOD, channel, _ANSWER_SIZE, NACK, tag, _REQUEUE if requeue else 0, FRAME_END[0])


def decode_confirm(payload: bytes) -> tuple[int, bool]:
    """Read tag and ``multiple`` of the broker's ``basic.ack`` or ``basic.nack``."""
    tag, flags = _CONFIRM.unpack_from(payload, 4)
    return tag, bool(flags & _MULTIPLE)


def _lenient(data: bytes, at: int) -> tuple[str, int]:
    """Read a short string that the broker let through; bytes that are not UTF-8 become U+FFFD."""
    if at >= len(data):
        return "", at
    end = at + 1 + data[at]
    return data[at + 1 : end].decode(errors="replace"), end


def _deliveries(headers: Mapping[str, Any]) -> int:
    count = headers.get("x-delivery-count")
    return count if type(count) is int and count > 0 else 0
