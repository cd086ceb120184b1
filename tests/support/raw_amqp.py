"""An AMQP client that publishes any bytes as properties: what a careless or hostile producer can put on the wire."""

from __future__ import annotations

import socket
import struct
from types import TracebackType

from pika import amqp_object, frame, spec

from penstock.urls import BrokerUrl

#: Flags of the content header, by the property's place in it.
CONTENT_TYPE, CONTENT_ENCODING, HEADERS, CORRELATION_ID, REPLY_TO = 1 << 15, 1 << 14, 1 << 13, 1 << 10, 1 << 9
MESSAGE_ID, TIMESTAMP, TYPE, APP_ID = 1 << 7, 1 << 6, 1 << 5, 1 << 3


class RawPublisher:
    """One blocking connection with one channel in confirm mode."""

    def __init__(self, url: str) -> None:
        at = BrokerUrl.parse(url)
        self._socket = socket.create_connection((at.host, at.port), timeout=10)
        self._buffer = b""
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._await(spec.Connection.Start)
        login = f"\x00{at.user}\x00{at.password}"
        self._call(0, spec.Connection.StartOk({}, "PLAIN", login), spec.Connection.Tune)
        self._send(0, spec.Connection.TuneOk(2047, 131072, 0))
        self._call(0, spec.Connection.Open(at.vhost), spec.Connection.OpenOk)
        self._call(1, spec.Channel.Open(), spec.Channel.OpenOk)
        self._call(1, spec.Confirm.Select(), spec.Confirm.SelectOk)

    def publish(self, queue: str, flags: int, properties: bytes, body: bytes = b"{}", key: bytes | None = None) -> None:
        """Publish to *queue* (or by *key* to the topic exchange of that name) and wait for the confirm."""
        exchange, routing_key = ("", queue.encode()) if key is None else (queue, key)
        names = b"".join(bytes([len(name)]) + name for name in (exchange.encode(), routing_key))
        header = struct.pack(">HHQH", 60, 0, len(body), flags) + properties
        method = struct.pack(">HHH", 60, 40, 0) + names + b"\x00"
        payloads = ((1, method), (2, header), (3, body))
        self._socket.sendall(b"".join(struct.pack(">BHI", kind, 1, len(p)) + p + b"\xce" for kind, p in payloads))
        self._await(spec.Basic.Ack)

    def __enter__(self) -> RawPublisher:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._socket.close()

    def _call(self, channel: int, method: amqp_object.Method, answer: type) -> None:
        self._send(channel, method)
        self._await(answer)

    def _send(self, channel: int, method: amqp_object.Method) -> None:
        self._socket.sendall(frame.Method(channel, method).marshal())

    def _await(self, kind: type) -> None:
        while True:
            size, value = frame.decode_frame(self._buffer)
            if value is None:
                data = self._socket.recv(65536)
                assert data, f"the broker hung up instead of {kind.__name__}"
                self._buffer += data
                continue
            self._buffer = self._buffer[size:]
            if isinstance(value, frame.Method):
                assert isinstance(value.method, kind), f"{value.method} instead of {kind.__name__}"
                return
