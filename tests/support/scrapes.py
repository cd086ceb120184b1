"""What a process shows over HTTP, asked for as a scraper or a probe would."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from tests.support.waiting import eventually

_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: str

    def value(self, sample: str) -> float | None:
        """The number after *sample*, written as in the page, labels and all."""
        found = re.search(rf"^{re.escape(sample)} (\S+)$", self.body, re.MULTILINE)
        return float(found[1]) if found else None

    @property
    def families(self) -> set[str]:
        """The names of the metrics in it."""
        return set(re.findall(r"^# TYPE (\S+) ", self.body, re.MULTILINE))


async def get(port: int, path: str, accept: str = "*/*", within: float = 10.0) -> Page:
    """GET *path* and read until the other side hangs up."""
    return await asked(port, f"GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode(), within)


async def asked(port: int, request: bytes, within: float = 10.0) -> Page:
    """Write *request*, whatever it is, and read until the other side hangs up."""
    async with asyncio.timeout(within):
        async with connected(port) as (reader, writer):
            writer.write(request)
            return parsed(await reader.read())


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to *port*, dropped at the end of the block."""
    reader, writer = await asyncio.open_connection(_HOST, port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def parsed(answer: bytes) -> Page:
    """An answer as it came."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Page(int(status.split(" ")[1]), headers, body.decode())


async def ports_in(log: Path, count: int = 1) -> list[int]:
    """The ports that processes logging into *log* serve, once there are *count*."""

    def found() -> list[int]:
        written = log.read_bytes().rpartition(b"\n")[0]
        lines = [orjson.loads(line) for line in written.splitlines() if line.startswith(b"{")]
        ports = [int(line["port"]) for line in lines if line["event"] == "serving metrics"]
        return ports if len(ports) >= count else []

    return await eventually(found, within=40)
