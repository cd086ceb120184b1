"""Publishers as users meet them: ``AsyncPublisher`` on an event loop, ``Publisher`` for everybody else."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import os
import socket
import threading
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar  # one publisher sends jobs of every argument type

from penstock.clock import Clock, SystemClock
from penstock.connect import broker_for
from penstock.errors import BrokerError, ConnectionLost, PenstockError, PublishManyError
from penstock.events import Events
from penstock.job import JobKind, NewJob, Receipt
from penstock.message import MAX_BODY
from penstock.ports import Broker
from penstock.publishing import Outgoing, Packer, Publishing
from penstock.reconnecting import CONNECT_TIMEOUT, Reconnecting
from penstock.sending import Sender
from penstock.urls import BrokerUrl

A = TypeVar("A")
T = TypeVar("T")

DEADLINE = timedelta(seconds=10)

#: Jobs handed to the I/O thread at a time by the blocking ``publish_many``, and such hand-overs under way at once.
_CHUNK = 500
_CHUNKS = 3

_UNTYPED: JobKind[dict[str, Any]] = JobKind("untyped", dict)


class AsyncPublisher:
    """Publishes jobs from one event loop; tasks of that loop may share it.

    *url*: the broker (None: ``RABBITMQ_URL`` and its fallbacks). *app_id*: the producer's name on every message.
    *deadline*: how long a publish may take, reconnecting included, before it raises. *max_body*: bytes. *kinds*: names
    of the catalogue; others are refused. Connects at the first publish, or at ``async with``, and stays connected.
    """

    def __init__(
        self,
        url: str | BrokerUrl | Broker | None = None,
        *,
        app_id: str | None = None,
        deadline: timedelta = DEADLINE,
        max_body: int = MAX_BODY,
        kinds: Collection[str] | None = None,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        clock: Clock | None = None,
        events: Events | None = None,
    ) -> None:
        broker = broker_for(url) if url is None or isinstance(url, str | BrokerUrl) else url
        #: The connection's name, by which events speak of it.
        self.name = f"{app_id or 'publisher'}@{socket.gethostname()}:{os.getpid()} publish"
        self.events = events or Events()
        self._seconds = deadline.total_seconds()
        self._packer = Packer(clock or SystemClock(), app_id, max_body, kinds)
        self._links = Reconnecting(broker, self.name, self.events, connect_timeout=connect_timeout)
        self._sender = Sender(self._links)
        self._publishing = Publishing(self._sender, self.events)

    async def publish(
        self,
        kind: JobKind[A],
        args: A,
        *,
        id: str | None = None,  # noqa: A002 - the wire's own word
        delay: timedelta | None = None,
        at: datetime | None = None,
        expires: datetime | timedelta | None = None,
        correlation_id: str | None = None,
        deadline: timedelta | None = None,
    ) -> Receipt:
        """Publish one job and return once the broker has confirmed it; the options are those of ``NewJob``.

        Raises ``SchemaError``, ``UsageError``, ``TooLarge`` before anything is sent; ``Unroutable``, ``Nacked``,
        ``AccessRefused``, ``TopologyMismatch`` when the broker refused it; ``ConnectionLost`` when it could not be sent
        before the deadline; ``Unconfirmed`` when it was sent and no answer came: publish it again with the same id.
        """
        return await self._send(self._packer.pack(NewJob(kind, args, id, delay, at, expires, correlation_id)), deadline)

    async def publish_body(
        self,
        kind: str,
        body: bytes,
        *,
        id: str | None = None,  # noqa: A002
        delay: timedelta | None = None,
        at: datetime | None = None,
        expires: datetime | timedelta | None = None,
        correlation_id: str | None = None,
        deadline: timedelta | None = None,
    ) -> Receipt:
        """Publish *body* as it is, unchecked, under any kind name; otherwise as ``publish``."""
        options = NewJob(_UNTYPED, {}, id, delay, at, expires, correlation_id)
        return await self._send(self._packer.pack_body(kind, body, options), deadline)

    async def publish_many(self, jobs: Iterable[NewJob[Any]], *, deadline: timedelta | None = None) -> list[Receipt]:
        """Publish *jobs*, pipelined, and return their receipts in order once all are confirmed.

        *jobs* is read lazily. *deadline* holds for each job from its turn. Raises ``PublishManyError`` naming every job
        that was not taken, after all are answered.
        """
        seconds = self._seconds if deadline is None else deadline.total_seconds()
        batch = _Batch(self._packer, jobs)
        return batch.receipts_or_raise(await self._publishing.send_many(batch.outgoing(), seconds))

    async def connect(self) -> None:
        """Open the connection now. Raises ``ConnectionLost`` after the connect timeout, or when it is lost meanwhile,
        and ``AccessRefused`` at once."""
        await self._sender.outlet()

    async def close(self) -> None:
        """Close the connection; publishes under way raise. Idempotent."""
        await self._sender.close()
        await self._links.close()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, outgoing: Outgoing, deadline: timedelta | None) -> Receipt:
        seconds = self._seconds if deadline is None else deadline.total_seconds()
        return await self._publishing.send(outgoing, asyncio.get_running_loop().time() + seconds)


class _Batch:
    """The jobs of one ``publish_many``: packs them one by one and remembers which could not be packed."""

    def __init__(self, packer: Packer, jobs: Iterable[NewJob[Any]]) -> None:
        self._packer = packer
        self._jobs = jobs
        self._receipts: list[Receipt | None] = []
        self._refused: list[tuple[int, str, PenstockError]] = []

    def outgoing(self) -> Iterator[Outgoing]:
        """The jobs that can be sent, in order."""
        pack, receipts = self._packer.pack, self._receipts
        for new in self._jobs:
            try:
                packed = pack(new)
            except PenstockError as error:
                self._refused.append((len(receipts), new.id or "no id", error))
                receipts.append(None)
                continue
            receipts.append(packed.receipt)
            yield packed

    def receipts_or_raise(self, results: list[PenstockError | None]) -> list[Receipt]:
        """The receipts, or ``PublishManyError`` with what was refused here and there."""
        if not self._refused and not any(results):
            return [receipt for receipt in self._receipts if receipt is not None]
        sent = [(position, receipt) for position, receipt in enumerate(self._receipts) if receipt is not None]
        failed = [(pos, receipt.id, err) for (pos, receipt), err in zip(sent, results, strict=True) if err is not None]
        failures = sorted([*self._refused, *failed], key=lambda failure: failure[0])
        raise PublishManyError(failures, len(self._receipts))


class Publisher:
    """Publishes jobs from ordinary code: blocking, shared by any threads, with one I/O thread behind it.

    Options are those of ``AsyncPublisher``. A forked child that uses it gets a connection of its own.
    """

    def __init__(
        self,
        url: str | BrokerUrl | Broker | None = None,
        *,
        app_id: str | None = None,
        deadline: timedelta = DEADLINE,
        max_body: int = MAX_BODY,
        kinds: Collection[str] | None = None,
        connect_timeout: timedelta = CONNECT_TIMEOUT,
        events: Events | None = None,
    ) -> None:
        self._broker = broker_for(url) if url is None or isinstance(url, str | BrokerUrl) else url
        self._app_id = app_id
        self._seconds = deadline.total_seconds()
        self._connect_timeout = connect_timeout
        self.events = events or Events()
        self._packer = Packer(SystemClock(), app_id, max_body, kinds)
        self._thread: _IoThread | None = None
        self._starting = threading.Lock()
        os.register_at_fork(after_in_child=_forgetting(self))

    def publish(
        self,
        kind: JobKind[A],
        args: A,
        *,
        id: str | None = None,  # noqa: A002
        delay: timedelta | None = None,
        at: datetime | None = None,
        expires: datetime | timedelta | None = None,
        correlation_id: str | None = None,
        deadline: timedelta | None = None,
    ) -> Receipt:
        """Publish one job and return once the broker has confirmed it; raises as ``AsyncPublisher.publish``."""
        packed = self._packer.pack(NewJob(kind, args, id, delay, at, expires, correlation_id))
        return self._io().send(packed, self._in_seconds(deadline))

    def publish_body(
        self,
        kind: str,
        body: bytes,
        *,
        id: str | None = None,  # noqa: A002
        delay: timedelta | None = None,
        at: datetime | None = None,
        expires: datetime | timedelta | None = None,
        correlation_id: str | None = None,
        deadline: timedelta | None = None,
    ) -> Receipt:
        """Publish *body* as it is, unchecked, under any kind name; otherwise as ``publish``."""
        options = NewJob(_UNTYPED, {}, id, delay, at, expires, correlation_id)
        return self._io().send(self._packer.pack_body(kind, body, options), self._in_seconds(deadline))

    def publish_many(self, jobs: Iterable[NewJob[Any]], *, deadline: timedelta | None = None) -> list[Receipt]:
        """Publish *jobs*, pipelined; as ``AsyncPublisher.publish_many``. *jobs* is read in the calling thread, a few
        hundred ahead of the confirms."""
        io, seconds = self._io(), self._in_seconds(deadline)
        batch = _Batch(self._packer, jobs)
        chunks: list[concurrent.futures.Future[list[PenstockError | None]]] = []
        results: list[PenstockError | None] = []
        for chunk in _chunks(batch.outgoing()):
            chunks.append(io.send_many(chunk, seconds))
            if len(chunks) >= _CHUNKS:
                results += chunks.pop(0).result()
        for waiting in chunks:
            results += waiting.result()
        return batch.receipts_or_raise(results)

    def connect(self) -> None:
        """Open the connection now. Raises ``ConnectionLost`` after the connect timeout, or when it is lost meanwhile,
        and ``AccessRefused`` at once."""
        self._io().connect()

    def close(self) -> None:
        """Wait for the publishes under way (each has its deadline), then close the connection. Idempotent."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _in_seconds(self, deadline: timedelta | None) -> float:
        return self._seconds if deadline is None else deadline.total_seconds()

    def _io(self) -> _IoThread:
        thread = self._thread
        if thread is None:
            with self._starting:
                thread = self._thread = self._thread or self._start()
        return thread

    def _start(self) -> _IoThread:
        name = f"{self._app_id or 'publisher'}@{socket.gethostname()}:{os.getpid()} publish"
        return _IoThread(self._broker, name, self.events, self._connect_timeout)


class _IoThread:
    """An event loop in a thread of its own, with the connection of one ``Publisher``."""

    def __init__(self, broker: Broker, name: str, events: Events, connect_timeout: timedelta) -> None:
        self._loop = _new_loop()
        self._links = Reconnecting(broker, name, events, connect_timeout=connect_timeout)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._door = threading.Lock()
        self._closing = False
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"penstock {name}", daemon=True)
        self._thread.start()
        self._sender, self._publishing = self._call(self._build(events)).result()

    def send(self, outgoing: Outgoing, seconds: float) -> Receipt:
        """Publish and wait for the confirm."""
        answer: concurrent.futures.Future[Receipt] = concurrent.futures.Future()
        with self._entering():
            self._loop.call_soon_threadsafe(self._begin, outgoing, seconds, answer)
        return answer.result()

    def send_many(
        self, outgoing: list[Outgoing], seconds: float
    ) -> concurrent.futures.Future[list[PenstockError | None]]:
        """Publish all; the answers come with the future."""
        with self._entering():
            return self._call(self._tracked(self._publishing.send_many(outgoing, seconds)))

    def connect(self) -> None:
        """Open the connection. Raises ``BrokerError``."""
        with self._entering():
            opening = self._call(self._tracked(self._sender.outlet()))
        opening.result()

    def close(self) -> None:
        """Let what is under way end, then close connection and thread."""
        with self._entering():
            self._closing = True
        self._call(self._shut()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextlib.contextmanager
    def _entering(self) -> Iterator[None]:
        """Nothing is handed to a loop that is about to stop: whoever waited for it would wait for ever."""
        with self._door:
            if self._closing:
                raise ConnectionLost("the publisher was closed by another thread")
            yield

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    async def _tracked(self, coroutine: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return await coroutine

    async def _build(self, events: Events) -> tuple[Sender, Publishing]:
        sender = Sender(self._links)
        return sender, Publishing(sender, events)

    def _begin(self, outgoing: Outgoing, seconds: float, answer: concurrent.futures.Future[Receipt]) -> None:
        task = self._loop.create_task(self._send(outgoing, seconds, answer))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self, outgoing: Outgoing, seconds: float, answer: concurrent.futures.Future[Receipt]) -> None:
        try:
            answer.set_result(await self._publishing.send(outgoing, self._loop.time() + seconds))
        except BaseException as error:  # noqa: BLE001 - whatever ends the publish must reach the waiting thread
            answer.set_exception(error)

    async def _shut(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way)
        with contextlib.suppress(BrokerError):
            await self._sender.close()
        await self._links.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _chunks(items: Iterator[Outgoing]) -> Iterator[list[Outgoing]]:
    while chunk := list(itertools.islice(items, _CHUNK)):
        yield chunk


def _forgetting(publisher: Publisher) -> Callable[[], None]:
    """After a fork the I/O thread does not exist in the child, and its connection is the parent's: use neither."""
    reference = weakref.ref(publisher)

    def forget() -> None:
        alive = reference()
        if alive is not None:
            alive._thread = None
            alive._starting = threading.Lock()

    return forget
