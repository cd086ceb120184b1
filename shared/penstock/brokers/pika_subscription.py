"""A consumer on a channel of its own: deliveries come in whole, acks go out coalesced."""

from __future__ import annotations

import asyncio
from functools import partial

from penstock.brokers.acks import AckLedger
from penstock.brokers.channels import Channel
from penstock.brokers.content import ContentSink
from penstock.brokers.frames import DELIVER, DeliveryDecoder, encode_ack, encode_nack
from penstock.errors import BrokerError, ConnectionLost
from penstock.message import Delivery
from penstock.ports import OnDelivery


class PikaSubscription(ContentSink):
    """A ``Subscription`` over a pika channel. Deliveries of other channels are never settled here: tags would match."""

    def __init__(self, channel: Channel, queue: str, on_delivery: OnDelivery, tag: str) -> None:
        super().__init__()
        self._channel = channel
        self._wire = channel.wire
        self._queue = queue
        self._on_delivery = on_delivery
        self._name = tag
        self._opens = 0
        self._tag = ""
        self._decoder = DeliveryDecoder(queue)
        self._ledger = AckLedger()
        self._outstanding: dict[int, Delivery] = {}
        self._collecting = False
        self._changing = asyncio.Lock()
        self.ended: asyncio.Future[BrokerError] = channel.wire.loop.create_future()
        channel.attach(self, lambda closing: self._end(closing.error))
        channel.pika.add_on_cancel_callback(self._on_cancelled)

    async def start(self, prefetch: int) -> None:
        """Set *prefetch* and consume, under a tag not used on this channel before. Raises ``BrokerError``."""
        self._opens += 1
        self._tag = self._name if self._opens == 1 else f"{self._name}.{self._opens}"
        pika = self._channel.pika
        await self._channel.call("basic.qos", partial(pika.basic_qos, prefetch_count=prefetch))
        await self._channel.call(
            "basic.consume", partial(pika.basic_consume, self._queue, _never, consumer_tag=self._tag)
        )

    def ack(self, delivery: Delivery) -> None:
        """See ``Subscription.ack``. A delivery that is settled already, or came by another channel, is left alone."""
        if self._take(delivery):
            self._ledger.finish(delivery.tag)
            if not self._collecting:
                self._collecting = True
                self._wire.at_turn_end(self._send_acks)

    def release(self, delivery: Delivery) -> None:
        """See ``Subscription.release``."""
        self._nack(delivery, requeue=True)

    def reject(self, delivery: Delivery) -> None:
        """See ``Subscription.reject``."""
        self._nack(delivery, requeue=False)

    async def widen(self, prefetch: int) -> None:
        """See ``Subscription.widen``. Never raises: a failure ends the subscription."""
        async with self._changing:
            if self.ended.done() or not self._tag:
                return
            try:
                await self._cancel()
                await self.start(prefetch)
            except BrokerError as error:
                self._end(error)

    async def cancel(self) -> None:
        """See ``Subscription.cancel``. Never raises: without the broker's answer the subscription ends."""
        async with self._changing:
            if self.ended.done() or not self._tag:
                return
            try:
                await self._cancel()
            except BrokerError as error:
                self._end(error)

    async def close(self) -> None:
        """See ``Subscription.close``."""
        self._send_acks()
        self._end(ConnectionLost(f"{self._channel.peer}: the subscription to {self._queue!r} was closed on our side"))
        await self._channel.close()

    async def _cancel(self) -> None:
        tag, self._tag = self._tag, ""
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
            self._wire.put((encode_nack(self._channel.number, delivery.tag, requeue),))

    def _send_acks(self) -> None:
        self._collecting = False
        if not self.ended.done():
            number = self._channel.number
            self._wire.put([encode_ack(number, tag, multiple) for tag, multiple in self._ledger.collect()])

    def _on_method(self, payload: bytes) -> bool:
        if payload[:4] != DELIVER:
            return False
        self._method = payload
        return True

    def _on_content(self, method: bytes, header: bytes, body: bytes) -> None:
        if self.ended.done():
            return  # it goes back to the queue with the channel
        delivery = self._decoder.decode(method, header, body)
        self._outstanding[delivery.tag] = delivery
        self._ledger.delivered(delivery.tag)
        self._on_delivery(delivery)

    def _on_cancelled(self, _: object) -> None:
        """The broker took the consumer away: what it has returned meanwhile must not be acked by its old tag."""
        self._end(
            BrokerError(
                f"{self._channel.peer}: the broker cancelled the consumer of {self._queue!r}:"
                " the queue was deleted or moved, or a delivery met the consumer timeout"
            )
        )

    def _end(self, reason: BrokerError) -> None:
        if self.ended.done():
            return
        self.ended.set_result(reason)
        self._outstanding.clear()
        self._channel.drop()


def _never(*_: object) -> None:
    """Deliveries do not come by pika."""
