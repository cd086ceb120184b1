"""An SMTP server that keeps what it accepts: a process of its own, so that nobody else can write its book.

It answers 451 for a while after the first try, refuses some addresses for good, and writes a line for every mail it
takes before it says so: a mail that was taken twice is there twice.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path

import orjson
from aiosmtpd.smtp import SMTP, Envelope, Session

#: Addresses in this domain are refused for good.
REFUSED_DOMAIN = "refused.example"

NOT_NOW = "451 4.3.2 the mail system is down for a moment, try again later"
NEVER = "550 5.1.1 there is no such mailbox here"


@dataclass  # without slots: aiosmtpd inspects its members, and Python 3.11.2 has a slot there that cannot be read
class Sink:
    """Takes mails into *book* (a file descriptor). *outage* and *think* are in seconds."""

    book: int
    outage: float
    think: float
    _first: float | None = None

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Answer to a recipient."""
        now = time.monotonic()
        self._first = now if self._first is None else self._first
        if now < self._first + self.outage:
            return NOT_NOW
        if address.endswith(f"@{REFUSED_DOMAIN}"):
            return NEVER
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Write the mail down, then say that it was taken."""
        await asyncio.sleep(self.think)
        content = envelope.original_content or b""
        headers = BytesHeaderParser().parsebytes(content)
        entry = {
            "id": str(headers["Message-ID"] or "").strip("<>").removesuffix("@penstock"),
            "run": str(headers["X-Correlation-ID"] or ""),
            "to": envelope.rcpt_tos,
            "subject": str(headers["Subject"] or ""),
        }
        os.write(self.book, orjson.dumps(entry) + b"\n")
        return "250 OK taken"


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve on *--listen*, or on the listening socket that was inherited as *--fd*, until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m services.demo.sink", description=__doc__)
    parser.add_argument("book", type=Path, help="the file that mails are appended to, a line of JSON each")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--fd", type=int, help="the listening socket")
    where.add_argument("--listen", metavar="HOST:PORT", help="the address to listen on")
    parser.add_argument("--outage", type=float, default=0.0, help="seconds of 451 from the first mail on")
    parser.add_argument("--think", type=float, default=0.0, help="seconds a mail takes")
    told = parser.parse_args(arguments)
    book = os.open(told.book, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    listening = socket.socket(fileno=told.fd) if told.listen is None else _listening(told.listen)
    asyncio.run(_serve(listening, Sink(book, told.outage, told.think)))


def _listening(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_server((host, int(port)), backlog=200)


async def _serve(listening: socket.socket, sink: Sink) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: SMTP(sink, hostname="sink.example", loop=loop), sock=listening)
    async with server:
        await stop.wait()


if __name__ == "__main__":
    main()
