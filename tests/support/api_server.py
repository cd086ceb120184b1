"""Somebody else's paged HTTP API on the test's event loop, which misbehaves as it is told: by the byte."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any  # JSON
from urllib.parse import parse_qs, urlsplit

from tests.support.loopback import listening


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered: *cut* bytes of it, then the connection breaks. *silent*: headers, and then nothing at all."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    silent: bool = False

    @property
    def head(self) -> bytes:
        headers = {"Content-Length": str(len(self.body)), "Connection": "close", **self.headers}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Somehow\r\n{lines}\r\n".encode()


def redirect(where: str, status: int = 302) -> Answer:
    """An answer that leads elsewhere."""
    return Answer(status, b"", {"Location": where})


def in_json(value: Any, **headers: str) -> Answer:
    """An answer with *value* in it."""
    return Answer(200, json.dumps(value).encode(), headers)


class ApiServer:
    """Serves ``orders`` by ``page`` at a time: as long as there is something in *faults*, that comes first."""

    def __init__(self) -> None:
        self.port = 0
        self.page = 3
        self.orders: list[dict[str, Any]] = []
        self.faults: deque[Answer] = deque()
        #: What is always answered at a path.
        self.fixed: dict[str, Answer] = {}
        self.requests: list[Request] = []
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/orders?limit=3"

    def fill(self, count: int) -> None:
        """Let there be *count* more orders."""
        first = len(self.orders) + 1
        self.orders += [{"id": n, "status": "new", "amount": n / 4} for n in range(first, first + count)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # who asked has gone
        finally:
            self._open.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        target = urlsplit(head[0].split()[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        request = Request(target.path, {name: last[-1] for name, last in parse_qs(target.query).items()}, headers)
        self.requests.append(request)
        answer = self._answer(request)
        writer.write(answer.head if answer.silent else (answer.head + answer.body)[: answer.cut])
        await writer.drain()
        if answer.silent:
            await reader.read()  # until the other side gives up

    def _answer(self, request: Request) -> Answer:
        if request.path in self.fixed:
            return self.fixed[request.path]
        if self.faults:
            return self.faults.popleft()
        after = int(request.query.get("after", 0))
        shown = [order for order in self.orders if order["id"] > after][: self.page]
        more = bool(shown) and shown[-1]["id"] < self.orders[-1]["id"]
        body = json.dumps({"data": shown, "paging": {"after": shown[-1]["id"] if more else None}}).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if request.headers.get("if-none-match") == etag:
            return Answer(304, b"", {"ETag": etag})
        return Answer(200, body, {"ETag": etag})

    def cut(self) -> None:
        """Break every connection."""
        for writer in self._open:
            writer.transport.abort()


@asynccontextmanager
async def api_server() -> AsyncIterator[ApiServer]:
    """A server on the loopback address; its connections end with it."""
    found = ApiServer()
    async with listening(found.serve) as found.port:
        try:
            yield found
        finally:
            found.cut()
