"""uvicorn as it is used here: it waits for nobody for ever, speaks no plain-text errors, and leaves signals to us."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import Iterator
from datetime import timedelta

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from penstock import ConfigError
from services.intake.problems import CONTENT_TYPE, Problem

#: Seconds for a request's head, for an idle connection, and for a client to read an answer that came early.
HEAD, IDLE, LINGER = 5.0, 5, 5.0
MAX_HEAD = 16 * 1024
_BACKLOG = 2048


class PatientProtocol(H11Protocol):
    """HTTP/1.1 whose every wait for the client ends: for the head of a request, for the rest of a body that was
    answered already, for the reading of an answer."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._until(HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        self._at_ease()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._until(HEAD)  # part of a head; counts from its first byte
        elif self.conn.our_state is not h11.DONE:
            self._at_ease()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._until(LINGER)

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # closing would wait for a reader that does not read
        else:
            super().timeout_keep_alive_handler()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP: uvicorn's own answer is plain text."""
        problem = Problem(400, "malformed", msg)
        response = problem.response("none")
        body = bytes(response.body)
        headers = [("Content-Type", CONTENT_TYPE), ("Content-Length", str(len(body))), ("Connection", "close")]
        for event in (h11.Response(status_code=400, headers=headers, reason=b"Bad Request"), h11.Data(data=body)):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()

    def _until(self, seconds: float) -> None:
        if self._limit is None:
            self._limit = self.loop.call_later(seconds, self._hang_up)

    def _at_ease(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None

    def _hang_up(self) -> None:
        self._limit = None
        self.transport.abort()


class Server(uvicorn.Server):
    """Serves *app* until ``should_exit``, then lets requests end for at most *drain*."""

    def __init__(self, app: ASGIApp, *, most: int, drain: timedelta) -> None:
        # What it would log is told by the door, or is about clients that hung up.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL + 1)
        super().__init__(
            uvicorn.Config(
                app,
                http=PatientProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=2 * most,
                backlog=_BACKLOG,
                timeout_keep_alive=IDLE,
                timeout_graceful_shutdown=math.ceil(drain.total_seconds()),
                h11_max_incomplete_event_size=MAX_HEAD,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's own affair."""
        yield


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there; a free port for 0. Raises ``ConfigError``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}, which INTAKE_HOST and INTAKE_PORT name: {error.strerror or error}"
        ) from error
