"""An SMTP server that says what a test has written down, byte for byte, or nothing at all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from services.mailer.smtp import SmtpServer

#: In place of an answer: silence, or the end of the connection.
SILENT, HANGS_UP = b"", b"\x00"

_USUAL = {"greeting": b"220 mail.test", "EHLO": b"250-mail.test\r\n250 SIZE 1000000", "DATA": b"354 go on"}


@dataclass
class Script:
    """``answers`` by command in capitals; ``greeting`` is the first line, ``.`` what the end of a mail is told.

    An answer that is a list is used up, one each time; then the usual ones follow.
    """

    answers: Mapping[str, bytes | list[bytes]]
    port: int = 0
    #: What clients said: how often each command, and every line.
    commands: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    connections: int = 0
    _goes_on: bool = False

    @property
    def server(self) -> SmtpServer:
        """Where it is."""
        return SmtpServer("127.0.0.1", self.port)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        try:
            open_ = self._say(writer, "greeting")
            while open_ and (line := await reader.readline()):
                self.lines.append(line.decode().strip())
                command = line[:4].decode().strip().upper()
                self.commands[command] += 1
                open_ = self._say(writer, command) and command != "QUIT"
                if command == "DATA" and self.commands["."] < self.commands["DATA"] and self._goes_on:
                    await reader.readuntil(b"\r\n.\r\n")
                    self.commands["."] += 1
                    open_ = self._say(writer, ".")
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _say(self, writer: asyncio.StreamWriter, to: str) -> bool:
        answer = self.answers.get(to, b"")
        if isinstance(answer, list):
            answer = answer.pop(0) if answer else _USUAL.get(to, b"250 OK")
        elif to not in self.answers:
            answer = _USUAL.get(to, b"250 OK")
        self._goes_on = answer.startswith(b"354")
        if answer == HANGS_UP:
            return False
        if answer != SILENT:
            writer.write(answer + b"\r\n")
        return True


@asynccontextmanager
async def scripted(**answers: bytes | list[bytes]) -> AsyncIterator[Script]:
    """A server on the loopback address that answers so; ``end`` is what the end of a mail is told."""
    script = Script({"." if name == "end" else name: answer for name, answer in answers.items()})
    listening = await asyncio.start_server(script.serve, "127.0.0.1", 0)
    script.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield script
