"""A channel in confirm mode: publishes go out many to a write, their answers come back by number."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from penstock.brokers import translate
from penstock.brokers.channels import Channel
from penstock.brokers.content import ContentSink
from penstock.brokers.frames import ACK, NACK, RETURN, PublishEncoder, decode_confirm
from penstock.brokers.properties import seq_of
from penstock.brokers.translate import Closing
from penstock.errors import BrokerError, ConnectionLost, Nacked, PublishError, Unconfirmed, Unroutable
from penstock.message import Message

#: Seconds between two looks at the deadlines, at least.
_GRAIN = 0.02


@dataclass(slots=True)
class _Publish:
    future: asyncio.Future[None]
    exchange: str
    key: str
    size: int
    deadline: float

    def fail(self, error: BrokerError) -> None:
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # a caller who dropped the future wants no warning about it

    def __str__(self) -> str:
        return f"{self.key!r} on exchange {self.exchange!r}"


class PikaOutlet(ContentSink):
    """An ``Outlet`` over a pika channel that is already in confirm mode.

    While the broker has blocked the connection, or the transport's buffer is full, publishes wait here unsent: one
    whose deadline passes meanwhile is certainly not on the broker, and its ``Unconfirmed`` says so.
    """

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel
        self._wire = channel.wire
        self._loop = channel.wire.loop
        self._encoder = PublishEncoder(channel.number, channel.wire.frame_max)
        self._sent = 0  # the channel's publish sequence
        self._settled = 0  # every lower number has its answer
        self._pending: dict[int, _Publish] = {}
        self._held: deque[tuple[_Publish, tuple[bytes, ...]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._wake = float("inf")
        self.lost: asyncio.Future[BrokerError] = self._loop.create_future()
        self._wire.when_writable(self, self._send_held)
        channel.attach(self, self._end)

    @property
    def pending(self) -> int:
        """How many publishes wait for their answer."""
        return len(self._pending) + len(self._held)

    def publish(self, message: Message, exchange: str, key: str, deadline: float) -> asyncio.Future[None]:
        """See ``Outlet.publish``. Never raises: what is refused here fails the future as well."""
        publish = _Publish(self._loop.create_future(), exchange, key, len(message.body), deadline)
        if self.lost.done():
            publish.fail(ConnectionLost(f"{publish} was not sent: {self.lost.result()}"))
            return publish.future
        try:
            pieces = self._encoder.encode(message, exchange, key, self._sent + 1)
        except PublishError as error:
            publish.fail(error)
            return publish.future
        if self._held or not self._wire.writable:
            self._held.append((publish, pieces))
        else:
            self._send(publish, pieces)
        if deadline < self._wake:
            self._watch(deadline)
        return publish.future

    async def close(self) -> None:
        """See ``Outlet.close``."""
        self._end(Closing(ConnectionLost(f"{self._channel.peer}: the outlet was closed on our side")))
        await self._channel.close()

    def _send(self, publish: _Publish, pieces: tuple[bytes, ...]) -> None:
        self._sent += 1
        self._pending[self._sent] = publish
        self._wire.put(pieces, publish.size)

    def _send_held(self) -> None:
        now = self._loop.time()
        while self._held and self._wire.writable:
            publish, pieces = self._held.popleft()
            if publish.deadline > now:
                self._send(publish, self._encoder.renumber(pieces, self._sent + 1))
            else:
                publish.fail(_late(publish, sent=False))

    def _on_method(self, payload: bytes) -> bool:
        method = payload[:4]
        if method == ACK:
            self._on_confirm(payload, None)
        elif method == NACK:
            self._on_confirm(payload, _nacked)
        elif method == RETURN:
            self._method = payload
        else:
            return False
        return True

    def _on_confirm(self, payload: bytes, refusal: Callable[[_Publish], BrokerError] | None) -> None:
        number, multiple = decode_confirm(payload)
        numbers: Iterable[int] = (number,)
        if multiple:
            numbers = range(self._settled + 1, number + 1)
            self._settled = max(self._settled, number)
        for settled in numbers:
            publish = self._pending.pop(settled, None)
            if publish is None:
                continue  # returned before, or answered after its deadline
            if refusal is not None:
                publish.fail(refusal(publish))
            elif not publish.future.done():
                publish.future.set_result(None)

    def _on_content(self, _method: bytes, header: bytes, _body: bytes) -> None:
        """Take a returned message. Its confirm follows, and finds it answered."""
        number = seq_of(header)
        publish = self._pending.pop(number, None) if number is not None else None
        if publish is not None:
            publish.fail(
                Unroutable(f"no queue is bound for {publish}: is the key spelled right and the topology applied?")
            )

    def _watch(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._wake = max(deadline, self._loop.time() + _GRAIN)
        self._timer = self._loop.call_at(self._wake, self._sweep)

    def _sweep(self) -> None:
        """Fail what is past its deadline, and sleep until the next one."""
        now = self._loop.time()
        for number in [number for number, publish in self._pending.items() if publish.deadline <= now]:
            publish = self._pending.pop(number)
            publish.fail(_late(publish, sent=True))
        self._drop_late_held(now)
        self._timer, self._wake = None, float("inf")
        deadlines = [publish.deadline for publish in self._pending.values()]
        deadlines += [publish.deadline for publish, _ in self._held]
        if deadlines:
            self._watch(min(deadlines))

    def _drop_late_held(self, now: float) -> None:
        for publish, _ in self._held:
            if publish.deadline <= now:
                publish.fail(_late(publish, sent=False))
        self._held = deque(held for held in self._held if held[0].deadline > now)

    def _end(self, closing: Closing) -> None:
        if self.lost.done():
            return
        self.lost.set_result(closing.error)
        self._wire.when_writable(self, None)
        if self._timer is not None:
            self._timer.cancel()
        pending, self._pending = self._pending, {}
        held, self._held = self._held, deque()
        alone = len(pending) == 1
        for publish in pending.values():
            meant = closing.blames(publish.exchange, publish.key, publish.size, alone=alone)
            publish.fail(translate.again(closing.error) if meant else _unknown(publish, closing.error))
        for publish, _ in held:
            publish.fail(ConnectionLost(f"{publish} was not sent: {closing.error}"))


def _nacked(publish: _Publish) -> BrokerError:
    return Nacked(f"the broker refused {publish}: a queue it goes to is full or unavailable")


def _late(publish: _Publish, *, sent: bool) -> BrokerError:
    if sent:
        return Unconfirmed(f"no confirm for {publish} before the deadline: it may or may not be on the broker")
    return Unconfirmed(f"{publish} was not sent before the deadline: the broker takes no messages now (alarm or flow)")


def _unknown(publish: _Publish, reason: BrokerError) -> BrokerError:
    return ConnectionLost(f"no confirm for {publish}, it may or may not be on the broker: {reason}")
