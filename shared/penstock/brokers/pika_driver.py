"""The driver that carries jobs: connections that publish and consume, over pika on the running event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pika

from penstock.brokers import translate
from penstock.brokers.channels import Channel
from penstock.brokers.pika_outlet import PikaOutlet
from penstock.brokers.pika_subscription import PikaSubscription
from penstock.brokers.wire import Wire, WireProtocol
from penstock.errors import BrokerError, ConnectionLost, TopologyMismatch
from penstock.headers import SLOTS
from penstock.ports import OnDelivery
from penstock.urls import BrokerUrl
from penstock.version import __version__

#: Seconds the broker has to answer our goodbye.
_CLOSE_WITHIN = 5.0


class PikaBroker:
    """A RabbitMQ broker by its URL; opens connections on the running loop, asyncio's or uvloop's.

    *heartbeat* (the URL's own goes first): a silent broker is given up after it + 5 s. *connect_timeout* covers name
    look-up, TCP, TLS, login and the opening of the virtual host together.
    """

    def __init__(
        self,
        url: BrokerUrl | str,
        *,
        heartbeat: timedelta = timedelta(seconds=10),
        connect_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        """Raises ``ConfigError`` for an unusable URL or certificate file."""
        self._url = BrokerUrl.parse(url) if isinstance(url, str) else url
        self._ssl = self._url.ssl_context()
        own = self._url.heartbeat
        self._heartbeat = round(heartbeat.total_seconds()) if own is None else own
        self._connect_timeout = connect_timeout.total_seconds()
        logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs tracebacks of what we translate

    async def connect(self, name: str) -> PikaLink:
        """See ``Broker.connect``."""
        link = PikaLink(self._parameters(name), self._url.masked)
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._open(link)
        except TimeoutError:
            raise ConnectionLost(f"{self._url.masked}: no connection within {self._connect_timeout:g} s") from None
        except OSError as error:
            raise translate.unreachable(error, self._url.masked) from error
        finally:
            if not link.is_open:
                link.abort()
        return link

    async def _open(self, link: PikaLink) -> None:
        await asyncio.get_running_loop().create_connection(
            link.protocol,
            self._url.host,
            self._url.port,
            ssl=self._ssl,
            server_hostname=self._url.host if self._ssl else None,
        )
        await link.opened()

    def _parameters(self, name: str) -> pika.ConnectionParameters:
        return pika.ConnectionParameters(
            host=self._url.host,
            port=self._url.port,
            virtual_host=self._url.vhost,
            credentials=pika.PlainCredentials(self._url.user, self._url.password),
            heartbeat=self._heartbeat,
            client_properties={
                "connection_name": name,
                "product": "Penstock",
                "version": __version__,
                "information": "",
            },
        )


class PikaLink:
    """A ``Link`` over one pika connection."""

    def __init__(self, parameters: pika.ConnectionParameters, peer: str) -> None:
        self._peer = peer
        self.lost: asyncio.Future[BrokerError] = asyncio.get_running_loop().create_future()
        self._wire = Wire(parameters, self._on_ended)

    @property
    def blocked(self) -> bool:
        """See ``Link.blocked``."""
        return self._wire.blocked

    def on_blocked(self, tell: Callable[[str | None], None]) -> None:
        """See ``Link.on_blocked``."""
        self._wire.on_blocked = tell

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done and the connection stands."""
        return self._wire.opened.done() and not self.lost.done()

    def protocol(self) -> WireProtocol:
        """What the transport talks to."""
        return WireProtocol(self._wire)

    def abort(self) -> None:
        """Drop the connection without a goodbye."""
        self._wire.abort()

    async def opened(self) -> None:
        """Wait until the broker has let us in. Raises ``AccessRefused`` and ``ConnectionLost``."""
        await asyncio.wait((self._wire.opened, self.lost), return_when=asyncio.FIRST_COMPLETED)
        self._raise_if_lost()

    async def outlet(self) -> PikaOutlet:
        """See ``Link.outlet``."""
        channel = await self._channel()
        await channel.call("confirm.select", partial(channel.pika.confirm_delivery, _never))
        return PikaOutlet(channel)

    async def consume(
        self, queue: str, prefetch: int, on_delivery: OnDelivery, tag: str, *, slots: int | None = None
    ) -> PikaSubscription:
        """See ``Link.consume``."""
        channel = await self._channel()
        told = None if slots is None else {SLOTS: slots}
        subscription = PikaSubscription(channel, queue, on_delivery, tag, self._why_cancelled, told)
        await subscription.start(prefetch)
        return subscription

    async def depth(self, queue: str) -> int:
        """See ``Link.depth``."""
        channel = await self._channel()
        ask = partial(channel.call, "queue.declare", partial(channel.pika.queue_declare, queue, passive=True))
        # A quorum queue whose leader does not answer within 250 ms is told to be empty (rabbit_quorum_queue:stat/2).
        count = int((await ask()).method.message_count) or int((await ask()).method.message_count)
        channel.drop()
        return count

    async def close(self) -> None:
        """See ``Link.close``. A broker that blocks us reads no goodbye, so then there is none."""
        try:
            if not self.blocked:
                await self._say_goodbye()
        finally:
            self._wire.abort()
        await asyncio.wait([self.lost], timeout=_CLOSE_WITHIN)

    async def _say_goodbye(self) -> None:
        if self._wire.is_open:
            self._wire.close()
        await asyncio.wait([self.lost], timeout=_CLOSE_WITHIN)

    async def _why_cancelled(self, queue: str) -> BrokerError:
        """The broker's cancel gives no reason: see whether the queue is still there."""
        try:
            await self.depth(queue)
        except TopologyMismatch:
            return TopologyMismatch(f"{self._peer}: queue {queue!r} was deleted under its consumer")
        except BrokerError as error:
            return error
        return BrokerError(
            f"{self._peer}: the broker cancelled the consumer of {queue!r}, which still exists:"
            " a delivery met the consumer timeout, or the queue moved"
        )

    async def _channel(self) -> Channel:
        self._raise_if_lost()
        channel = Channel(self._wire, self._peer)
        await channel.opened()
        return channel

    def _raise_if_lost(self) -> None:
        if self.lost.done():
            raise translate.again(self.lost.result())

    def _on_ended(self, reason: BaseException | None) -> None:
        if not self.lost.done():
            self.lost.set_result(translate.closing(reason, self._peer).error)


def _never(*_: object) -> None:
    """Confirms do not come by pika."""
