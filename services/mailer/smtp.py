"""Mail over SMTP: a few connections that are used again, and answers told apart into *never* and *not now*."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from email.message import EmailMessage
from typing import Self
from urllib.parse import unquote, urlsplit

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
)

from penstock import ConfigError
from services.mailer.ports import NotNow, Refused

_PORTS = {"smtp": 25, "smtps": 465}

#: Answers in the 5xx that speak of us, not of the mail: log in first, login too weak or wrong, encryption needed.
_OUR_FAULT = frozenset({530, 534, 535, 538})


class _Gone(NotNow):
    """The connection broke."""


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail goes."""

    host: str
    port: int
    tls: bool = False
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read ``smtp://`` or ``smtps://``. Raises ``ConfigError``, which never shows the URL and its password."""
        try:
            parts = urlsplit(url.strip())
            port = parts.port
        except ValueError:
            raise ConfigError("MAILER_SMTP_URL cannot be read; write it as smtp://user:password@host:port") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
            raise ConfigError("MAILER_SMTP_URL is not of the form smtp://user:password@host:port (or smtps://)")
        if bool(parts.username) != bool(parts.password):
            raise ConfigError("MAILER_SMTP_URL has a user or a password, but not both")
        user, password = (unquote(word) if word else None for word in (parts.username, parts.password))
        return cls(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "smtps", user, password)

    def connection(self, timeout: timedelta) -> SMTP:
        """A connection that is not open yet. TLS when the server offers it; with a password, TLS or nothing."""
        return SMTP(
            hostname=self.host,
            port=self.port,
            username=self.user,
            password=self.password,
            use_tls=self.tls,
            start_tls=self._start_tls,
            timeout=timeout.total_seconds(),
        )

    @property
    def _start_tls(self) -> bool | None:
        """Upgrade: no, when it is TLS from the start; insist, when there is a password; else as the server likes."""
        if self.tls:
            return False
        return True if self.user else None


class SmtpPool:
    """At most *size* connections to *server*, opened when needed and kept for the next mail. Use it on one event loop.

    A connection that broke, or that the server closed while it was idle, is replaced. *timeout* holds for each step of
    the conversation. ``async with`` says goodbye on the idle connections at its end.
    """

    def __init__(self, server: SmtpServer, size: int, timeout: timedelta) -> None:
        self._server = server
        self._timeout = timeout
        self._free = asyncio.Semaphore(size)
        self._idle: list[SMTP] = []

    async def send(self, message: EmailMessage, sender: str, recipient: str) -> None:
        """Hand *message* to the server and return once it has taken it. Raises ``Refused`` or ``NotNow``.

        The server may get it twice when the connection breaks between the last byte and the answer.
        """
        data = message.as_bytes()
        async with self._free:
            if self._idle:
                try:
                    return await self._deliver(self._idle.pop(), data, sender, recipient)
                except _Gone:
                    pass  # a server may close an idle connection at any time: that is no failure of this mail
            return await self._deliver(await self._opened(), data, sender, recipient)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_quit(connection) for connection in idle))

    async def _deliver(self, connection: SMTP, data: bytes, sender: str, recipient: str) -> None:
        try:
            await connection.sendmail(sender, [recipient], data)
        except SMTPRecipientsRefused as error:
            raise _verdict(error.recipients[0]) from error
        except SMTPResponseException as error:
            raise _verdict(error) from error
        except SMTPServerDisconnected as error:
            raise _Gone(f"{self._server.host}:{self._server.port} closed the connection: {error}") from error
        except (SMTPException, OSError) as error:
            connection.close()
            raise NotNow(f"{self._server.host}:{self._server.port}: {error}") from error
        except BaseException:  # cancelled in the middle of a conversation: nobody can go on with it
            connection.close()
            raise
        finally:
            if connection.is_connected:
                self._idle.append(connection)

    async def _opened(self) -> SMTP:
        connection = self._server.connection(self._timeout)
        try:
            await connection.connect()
        except (SMTPException, OSError) as error:  # a refused login too: the mail is not to blame
            raise NotNow(f"{self._server.host}:{self._server.port} cannot be used: {_line(str(error))}") from error
        return connection


def _verdict(error: SMTPResponseException) -> Refused | NotNow:
    words = f"{error.code} {_line(error.message)}"
    never = 500 <= error.code < 600 and error.code not in _OUR_FAULT
    return Refused(words) if never else NotNow(words)


def _line(words: str) -> str:
    return " ".join(words.split())


async def _quit(connection: SMTP) -> None:
    try:
        await connection.quit(timeout=2)
    except (SMTPException, OSError):
        connection.close()
