"""A small HTTP port on the event loop: answers GET and HEAD for a few paths, and harms nobody whoever asks."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from penstock.errors import ConfigError

#: Connections at once (one more ends the oldest), bytes of a request's head, and seconds from accept to the last byte.
MOST = 128
MAX_HEAD = 8 * 1024
PATIENCE = 5.0

TEXT = "text/plain; charset=utf-8"

_REQUEST = re.compile(rb"([A-Z]{1,16}) (\S{1,2048}) HTTP/(\d)\.\d")
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path says."""

    status: int
    body: bytes
    content_type: str = TEXT


#: Called on the loop with the request's ``Accept`` header; must not raise or block. A future must not fail.
Route = Callable[[str], Answer | asyncio.Future[Answer]]


class HealthPort:
    """Serves *routes* (exact paths) on *host* and *port* (0: a free one). One event loop.

    A loop that does not turn does not answer: that is the sign of life. One request per connection; the head is bounded
    in size and in time, bodies are not read, and whoever reads slowly is cut off.
    """

    def __init__(self, host: str, port: int, routes: Mapping[str, Route], *, patience: float = PATIENCE) -> None:
        self.host = host
        self.port = port
        #: Seconds from accept to the last byte.
        self.patience = patience
        self._routes = routes
        self._server: asyncio.Server | None = None
        self._open: dict[_Exchange, None] = {}

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._open)

    async def open(self) -> None:
        """Listen; ``port`` is the real one from here on. Raises ``ConfigError`` when that is not possible."""
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _Exchange(self), self.host, self.port)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self.host}:{self.port}, which PENSTOCK_METRICS_PORT names: {error.strerror}"
            ) from error
        self.port = int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Stop listening and hang up. Idempotent."""
        if self._server is not None:
            self._server.close()
        for exchange in list(self._open):
            exchange.hang_up()

    def admit(self, exchange: _Exchange) -> None:
        """Take in a new connection, at the cost of the oldest when there are too many."""
        self._open[exchange] = None
        if len(self._open) > MOST:
            next(iter(self._open)).hang_up()

    def forget(self, exchange: _Exchange) -> None:
        """A connection has ended. Idempotent."""
        self._open.pop(exchange, None)

    def route(self, head: bytes) -> tuple[bool, Answer | asyncio.Future[Answer]]:
        """Whether the body is wanted, and the answer to a request."""
        request = _REQUEST.fullmatch(head.split(b"\r\n", 1)[0])
        if request is None:
            return True, _said(400, "this is no HTTP request")
        method, target, version = request.groups()
        if version != b"1":
            return True, _said(505, "HTTP/1.1, please")
        if method not in (b"GET", b"HEAD"):
            return True, _said(405, "GET or HEAD, please")
        route = self._routes.get(target.partition(b"?")[0].decode("latin-1"))
        return method == b"GET", route(_accept(head)) if route else _said(404, f"there is {', '.join(self._routes)}")


class _Exchange(asyncio.Protocol):
    """One connection: a request, its answer, the end."""

    def __init__(self, port: HealthPort) -> None:
        self._port = port
        self._head = bytearray()
        self._asked = False
        self._transport: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by class
        self._deadline = asyncio.get_running_loop().call_later(self._port.patience, self.hang_up)
        self._port.admit(self)

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        if self._deadline is not None:
            self._deadline.cancel()
        self._port.forget(self)

    def data_received(self, data: bytes) -> None:
        if self._asked:
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end >= 0:
            self._asked = True
            self._answer(*self._port.route(bytes(self._head[:end])))
        elif len(self._head) >= MAX_HEAD:
            self._asked = True
            self._answer(True, _said(431, f"a request's head has at most {MAX_HEAD} bytes here"))

    def hang_up(self) -> None:
        """End it now, whatever was said."""
        self._port.forget(self)
        if self._transport is not None:
            self._transport.abort()

    def _answer(self, with_body: bool, answer: Answer | asyncio.Future[Answer]) -> None:
        if isinstance(answer, Answer):
            self._say(with_body, answer)
            return

        def say(done: asyncio.Future[Answer]) -> None:
            self._say(with_body, _said(503, "stopping") if done.cancelled() else done.result())

        answer.add_done_callback(say)

    def _say(self, with_body: bool, answer: Answer) -> None:
        if self._transport is not None:
            self._transport.write(_written(answer, with_body))
            self._transport.close()


def _written(answer: Answer, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\nContent-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n"
    )
    allow = "Allow: GET, HEAD\r\n" if answer.status == 405 else ""
    return f"{head}{allow}\r\n".encode("latin-1") + (answer.body if with_body else b"")


def _accept(head: bytes) -> str:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"accept":
            return value.strip().decode("latin-1")
    return ""


def _said(status: int, words: str) -> Answer:
    return Answer(status, f"{words}\n".encode())
