"""A consumer on a channel of its own: deliveries come in whole, acks go out coalesced."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any  # what a coroutine is sent, what arguments hold

from penstock.brokers.acks import AckLedger
from penstock.brokers.channels import Channel
from penstock.brokers.content import ContentSink
from penstock.brokers.frames import DELIVER, DeliveryDecoder, encode_ack, encode_nack
from penstock.brokers.translate import Closing
from penstock.errors import BrokerError, ConnectionLost
from penstock.message import Delivery
from penstock.ports import OnDelivery

#: A channel of RabbitMQ has at most this many settlements on the way to a quorum queue (its quorum_commands_soft_limit
#: is 32); it holds back the others, and forgets them when it is closed: what was acked would be delivered again.
_ON_THE_WAY = 32
#: Seconds after which they have arrived; AMQP has no answer to an ack. Measured on 3.10.8: 60 acks one by one and an
#: instant close left 27 in the queue 9 times of 12, a close 20 ms later never.
_ARRIVED_AFTER = 0.1

#: Seconds an ack waits for others, at most, when a redelivery would be known as one; and the share of the window that
#: may wait, as a divisor. Each ack by itself is an entry in the log of a quorum queue, written to its disk.
_LINGER = 0.02
_LINGERING = 3

AskWhy = Callable[[str], Awaitable[BrokerError]]


class PikaSubscription(ContentSink):
    """A ``Subscription`` over a pika channel. Deliveries of other channels are never settled here: tags would match."""

    def __init__(
        self,
        channel: Channel,
        queue: str,
        on_delivery: OnDelivery,
        tag: str,
        ask_why: AskWhy,
        told: dict[str, Any] | None = None,
    ) -> None:
        """*ask_why* finds out, on another channel, why the broker cancelled the consumer of a queue.

        *told*: arguments of the consumer, which the broker keeps and shows.
        """
        super().__init__()
        self._channel = channel
        self._wire = channel.wire
        self._queue = queue
        self._on_delivery = on_delivery
        self._name = tag
        self._told = told
        self._opens = 0
        self._tag = ""
        self._decoder = DeliveryDecoder(queue)
        self._ledger = AckLedger()
        self._outstanding: dict[int, Delivery] = {}
        self._collecting = False
        self._holds = 0  # widenings under way
        self._recent, self._last_sent = 0, 0.0
        self._changing = asyncio.Lock()
        self._ask_why = ask_why
        self._asking: asyncio.Task[None] | None = None
        self._closing = False
        self._alive = True
        self.ended: asyncio.Future[BrokerError] = channel.wire.loop.create_future()
        self.on_acks: Callable[[int], None] | None = None
        self._finished = 0  # since acks were last sent
        self._most_finished = 1  # that may wait
        self._lingering: asyncio.TimerHandle | None = None
        channel.attach(self, self._on_closed)
        channel.pika.add_on_cancel_callback(self._on_cancelled)

    async def start(self, prefetch: int) -> None:
        """Set *prefetch* and consume, under a tag not used on this channel before. Raises ``BrokerError``."""
        self._opens += 1
        self._most_finished = min(max(1, prefetch // _LINGERING), _ON_THE_WAY)
        self._tag = self._name if self._opens == 1 else f"{self._name}.{self._opens}"
        pika = self._channel.pika
        await self._channel.call("basic.qos", partial(pika.basic_qos, prefetch_count=prefetch))
        await self._channel.call(
            "basic.consume",
            partial(pika.basic_consume, self._queue, _never, consumer_tag=self._tag, arguments=self._told),
        )

    def ack(self, delivery: Delivery) -> None:
        """See ``Subscription.ack``. A delivery that is settled already, or came by another channel, is left alone."""
        if self._take(delivery):
            self._ledger.finish(delivery.tag)
            self._finished += 1
            if self._collecting:
                return
            if not delivery.remembered or self._finished >= self._most_finished:
                self._collecting = True
                self._wire.at_turn_end(self._send_acks)
            elif self._lingering is None:
                self._lingering = self._wire.loop.call_later(_LINGER, self._send_acks)

    def release(self, delivery: Delivery) -> None:
        """See ``Subscription.release``."""
        self._nack(delivery, requeue=True)

    def reject(self, delivery: Delivery) -> None:
        """See ``Subscription.reject``."""
        self._nack(delivery, requeue=False)

    def widen(self, prefetch: int) -> Coroutine[Any, Any, None]:
        """See ``Subscription.widen``. Never raises: a failure ends the subscription.

        From this call on, acks are held until the broker consumes anew. An ack makes room in the old window, and what
        RabbitMQ has put there when the cancel comes it takes back and counts as a failed delivery (seen on 3.10.8).
        """
        self._holds += 1
        return self._widen(prefetch)

    async def _widen(self, prefetch: int) -> None:
        try:
            async with self._changing:
                if self._alive and self._tag:
                    await self._cancel()
                    await self.start(prefetch)
        except BrokerError as error:
            self._end(error)
        finally:
            self._holds = max(0, self._holds - 1)
            self._send_acks()

    async def cancel(self) -> None:
        """See ``Subscription.cancel``. Never raises: without the broker's answer the subscription ends."""
        async with self._changing:
            if not self._alive or not self._tag:
                return
            try:
                await self._cancel()
            except BrokerError as error:
                self._end(error)

    async def close(self) -> None:
        """See ``Subscription.close``."""
        self._closing = True
        self._holds = 0
        self._send_acks()
        if self._recent > _ON_THE_WAY:
            await asyncio.sleep(_ARRIVED_AFTER)
        self._end(ConnectionLost(f"{self._channel.peer}: the subscription to {self._queue!r} was closed on our side"))
        await self._channel.close()

    async def _cancel(self) -> None:
        tag, self._tag = self._tag, ""
        self._send_acks()
        self._recent = 0  # the queue itself answers a cancel, after everything that was sent before
        await self._channel.call("basic.cancel", partial(self._channel.pika.basic_cancel, tag))

    def _take(self, delivery: Delivery) -> bool:
        if self._outstanding.get(delivery.tag) is not delivery:
            return False
        del self._outstanding[delivery.tag]
        return True

    def _nack(self, delivery: Delivery, *, requeue: bool) -> None:
        if self._take(delivery):
            self._send_acks()
            self._ledger.answer(delivery.tag)
            self._put([encode_nack(self._channel.number, delivery.tag, requeue)])

    def _send_acks(self) -> None:
        self._collecting = False
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._alive and not self._holds:
            number = self._channel.number
            self._put([encode_ack(number, tag, multiple) for tag, multiple in self._ledger.collect()])
            if self.on_acks is not None and self._finished:
                self.on_acks(self._finished)
            self._finished = 0

    def _put(self, answers: list[bytes]) -> None:
        now = self._wire.loop.time()
        self._recent = len(answers) + (self._recent if now - self._last_sent < _ARRIVED_AFTER else 0)
        self._last_sent = now
        self._wire.put(answers)

    def _on_method(self, payload: bytes) -> bool:
        if payload[:4] != DELIVER:
            return False
        self._method = payload
        return True

    def _on_content(self, method: bytes, header: bytes, body: bytes) -> None:
        if not self._alive or self._closing:
            return  # it goes back to the queue with the channel
        delivery = self._decoder.decode(method, header, body)
        self._outstanding[delivery.tag] = delivery
        self._ledger.delivered(delivery.tag)
        self._on_delivery(delivery)

    def _on_cancelled(self, _: object) -> None:
        """The broker took the consumer away: what it has returned meanwhile must not be acked by its old tag."""
        if self._alive:
            self._asking = self._wire.loop.create_task(self._find_out_why(), name=f"why cancelled: {self._queue}")
            self._stop()

    async def _find_out_why(self) -> None:
        self._end(await self._ask_why(self._queue))

    def _on_closed(self, closing: Closing) -> None:
        if self._asking is None:
            self._end(closing.error)

    def _end(self, reason: BrokerError) -> None:
        if not self.ended.done():
            self.ended.set_result(reason)
            self._stop()

    def _stop(self) -> None:
        self._alive = False
        self._outstanding.clear()
        self._channel.drop()


def _never(*_: object) -> None:
    """Deliveries do not come by pika."""
