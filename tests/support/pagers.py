"""A pager under test: it takes what Alertmanager posts, and keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any  # Alertmanager's JSON

import orjson

from tests.support.loopback import listening


class Pager:
    """What came, in order."""

    def __init__(self) -> None:
        self.port = 0
        self.alerts: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Where it takes them."""
        return f"http://127.0.0.1:{self.port}/"

    def last(self, alert: str, queue: str, status: str) -> dict[str, Any] | None:
        """The newest of *alert* for *queue*, if it is of *status*."""
        wanted = {"alertname": alert, "queue": queue}
        last = next((each for each in reversed(self.alerts) if wanted.items() <= each["labels"].items()), None)
        return last if last is not None and last["status"] == status else None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take what one connection brings."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line[15:]) for line in head.splitlines() if line.lower().startswith(b"content-length")
                )
                self.alerts += orjson.loads(await reader.readexactly(length))["alerts"]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except asyncio.IncompleteReadError:
            writer.close()


@asynccontextmanager
async def a_pager() -> AsyncIterator[Pager]:
    """A pager on the loopback address."""
    found = Pager()
    async with listening(found.serve) as found.port:
        yield found
