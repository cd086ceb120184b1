"""Heartbeats of one connection, and the end of a connection from which nothing comes any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pika import exceptions
from pika.heartbeat import HeartbeatChecker

if TYPE_CHECKING:
    from penstock.brokers.wire import Wire

#: Seconds of silence forgiven beyond the heartbeat's own, and between two looks.
_GRACE = 5.0
_LOOK_EVERY = 1.0


class Heartbeat(HeartbeatChecker):
    """pika's sending of heartbeats with our watching.

    pika looks at fixed windows of heartbeat + 5 s, so that a broker that dies right after a look is noticed only after
    nearly two of them; this one counts from the last byte.
    """

    def __init__(self, wire: Wire, seconds: int) -> None:
        self._wire = wire
        self._limit = seconds + _GRACE
        self._last_bytes = -1
        self._last_time = wire.loop.time()
        self._next_look = 0.0
        super().__init__(wire, seconds)  # type: ignore[no-untyped-call]

    def _start_check_timer(self) -> None:
        self._next_look = self._wire.loop.time() + _LOOK_EVERY
        self._check_timer = self._wire._adapter_call_later(_LOOK_EVERY, self._check_heartbeat)

    def _check_heartbeat(self) -> None:
        now = self._wire.loop.time()
        held_up = now - self._next_look > _LOOK_EVERY  # a loop that stood still has not read what came meanwhile
        if self._wire.bytes_received != self._last_bytes or held_up:
            self._last_bytes, self._last_time = self._wire.bytes_received, now
        if now - self._last_time < self._limit:
            self._start_check_timer()
        else:
            self._wire._terminate_stream(exceptions.AMQPHeartbeatTimeout("silent"))
