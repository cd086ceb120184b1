"""The door around the application: who comes in, for how long, under which id, and what is answered when not."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass
from secrets import token_hex
from time import perf_counter

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.intake.meters import NO_ROUTE, Meters
from services.intake.problems import BUSY, Problem
from services.intake.rates import Rates
from services.intake.tokens import ANYBODY, Client, Tokens

#: What a request may call itself; anything else gets a new id.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_LOCAL_HOST = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE)

#: Paths that need no token, where they are served at all; so do the files of the page.
OPEN = ("/docs", "/openapi.json")

_log = structlog.stdlib.get_logger("penstock.intake")
_plain = logging.getLogger("penstock.intake")


@dataclass(slots=True, eq=False)
class _Exchange:
    """One request and its answer."""

    scope: Scope
    send_on: Send
    request_id: str
    status: int = 0

    async def send(self, message: Message) -> None:
        """Pass the answer on, with the headers that all of them have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self.request_id.encode()),
                (b"x-content-type-options", b"nosniff"),
                (b"cache-control", b"no-store"),
            ]
        await self.send_on(message)

    @property
    def route(self) -> str:
        """The pattern of the path that took it."""
        return getattr(self.scope.get("route"), "path", NO_ROUTE)


class Door:
    """Lets requests through to *app*. Sees to tokens (None: whoever is on this machine), rates and deadlines.

    *timeout*: seconds for the whole of a request. *most*: requests under way at once.
    """

    def __init__(
        self, app: ASGIApp, tokens: Tokens | None, rates: Rates, meters: Meters, *, timeout: float, most: int
    ) -> None:
        self._app = app
        self._tokens = tokens
        self._rates = rates
        self._meters = meters
        self._timeout = timeout
        self._most = most
        self.under_way = 0
        #: Requests that were cut off by a stop.
        self.cut_off = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = perf_counter()
        headers = Headers(scope=scope)
        exchange = _Exchange(scope, send, _request_id(headers))
        scope.setdefault("state", {})["request_id"] = exchange.request_id
        self.under_way += 1
        try:
            await self._answer(exchange, headers, receive)
        finally:
            self.under_way -= 1
            self._meters.count(exchange.route, exchange.status, started)
            if _plain.isEnabledFor(logging.DEBUG):  # asked first: a line that nobody reads costs as much as one
                _log.debug("request", route=exchange.route, status=exchange.status, request_id=exchange.request_id)

    async def _answer(self, exchange: _Exchange, headers: Headers, receive: Receive) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                self._admit(exchange.scope, headers)
                await self._app(exchange.scope, receive, exchange.send)
            return
        except Problem as found:
            problem = found
        except TimeoutError:
            problem = Problem(408, "slow", f"a request may take {self._timeout:g} s")
            problem.headers["Connection"] = "close"
        except asyncio.CancelledError:
            self.cut_off += 1
            raise
        except Exception:  # noqa: BLE001 - the edge: whatever it is, the client gets an answer and the log the reason
            _log.exception("a request failed", request_id=exchange.request_id)
            problem = Problem(500, "internal", "the log of the service says more")
        if not exchange.status:
            await problem.response(exchange.request_id)(exchange.scope, receive, exchange.send)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        if self.under_way > self._most:
            raise Problem(503, "busy", f"{self._most} requests are under way", retry_after=BUSY)
        if scope["path"] in OPEN or scope["path"].startswith("/docs/"):
            return
        client = scope["state"]["client"] = self._client(headers)
        self._rates.charge(client.name)

    def _client(self, headers: Headers) -> Client:
        if self._tokens is None:
            # A web site's name can be made to lead here, and then its pages are let in by the browser.
            if _LOCAL_HOST.fullmatch(headers.get("host", "")) is None:
                raise Problem(421, "misdirected", "without tokens only localhost, 127.0.0.1 and [::1] are served")
            return ANYBODY
        scheme, _, token = headers.get("authorization", "").partition(" ")
        client = self._tokens.client(token.strip()) if scheme.lower() == "bearer" else None
        if client is None:
            problem = Problem(401, "unauthorized", "send the header Authorization: Bearer TOKEN with a known token")
            problem.headers["WWW-Authenticate"] = 'Bearer realm="penstock"'
            raise problem
        return client


def _request_id(headers: Headers) -> str:
    asked = headers.get("x-request-id", "")
    return asked if _REQUEST_ID.fullmatch(asked) else token_hex(16)
