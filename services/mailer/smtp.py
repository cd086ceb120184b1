"""Mail over SMTP: a few connections that are used again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Self
from urllib.parse import unquote, urlsplit

from aiosmtplib import SMTP, SMTPException, SMTPResponseException, SMTPSenderRefused, SMTPServerDisconnected

from penstock import ConfigError
from services.mailer.answers import meaning
from services.mailer.ports import NotNow, TooMuch

_PORTS = {"smtp": 25, "smtps": 465}

#: How long is waited for politeness: that a server forgets a refused mail, or says goodbye (seconds).
_POLITE = 2.0


class _Gone(NotNow):
    """The connection broke."""


class _Closing(TooMuch):
    """The server closes the connection in place of beginning with a mail."""


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

    A connection that broke, or that the server closed while it was idle, is replaced. *timeout* holds for a whole mail,
    once it has a connection to itself. ``async with`` says goodbye on the idle connections at its end.
    """

    def __init__(self, server: SmtpServer, size: int, timeout: timedelta) -> None:
        self._server = server
        self._timeout = timeout
        self._free = asyncio.Semaphore(size)
        self._idle: list[SMTP] = []

    async def send(self, mail: bytes, sender: str, recipient: str) -> None:
        """Hand *mail* to the server and return once it has taken it. Raises ``Refused`` or ``NotNow``.

        The server may get it twice when the connection breaks between the last byte and the answer.
        """
        async with self._free:
            try:
                async with asyncio.timeout(self._timeout.total_seconds()):
                    await self._send(mail, sender, recipient)
            except TimeoutError as error:
                raise NotNow(f"{self._where} took longer than {self._timeout.total_seconds():g} s") from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        idle, self._idle = self._idle, []
        await asyncio.gather(*(_quit(connection) for connection in idle))

    @property
    def _where(self) -> str:
        return f"{self._server.host}:{self._server.port}"

    async def _send(self, mail: bytes, sender: str, recipient: str) -> None:
        if self._idle:
            try:
                return await self._deliver(self._idle.pop(), mail, sender, recipient)
            except (_Gone, _Closing):
                pass  # a server may close an idle connection at any time: that is no failure of this mail
        return await self._deliver(await self._opened(), mail, sender, recipient)

    async def _deliver(self, connection: SMTP, mail: bytes, sender: str, recipient: str) -> None:
        try:
            size = [f"SIZE={len(mail)}"] if connection.supports_extension("size") else []
            await connection.mail(sender, options=size)
            await connection.rcpt(recipient)
            await connection.data(mail)
        except SMTPResponseException as error:
            await _forget(connection)
            found = meaning(error.code, error.message)
            closing = isinstance(error, SMTPSenderRefused) and not connection.is_connected
            raise (_Closing(str(found)) if closing and isinstance(found, TooMuch) else found) from error
        except SMTPServerDisconnected as error:
            raise _Gone(f"{self._where} closed the connection: {error}") from error
        except (SMTPException, OSError) as error:
            connection.close()
            raise NotNow(f"{self._where}: {error}") from error
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
        except SMTPResponseException as error:
            raise self._not_open(error) from error
        except (SMTPException, OSError) as error:
            raise NotNow(f"{self._where} cannot be used: {' '.join(str(error).split())}") from error
        return connection

    def _not_open(self, error: SMTPResponseException) -> NotNow:
        """What an answer means that is to us, such as a refused login: no mail is to blame for it."""
        words = f"{self._where} cannot be used: {(found := meaning(error.code, error.message))}"
        return TooMuch(words) if isinstance(found, TooMuch) else NotNow(words)


async def _forget(connection: SMTP) -> None:
    """Let the server forget a mail that it did not take; a connection on which that fails is closed."""
    try:
        await connection.rset(timeout=_POLITE)
    except (SMTPException, OSError):
        connection.close()
    except BaseException:  # cancelled: the answer that is still owed would be taken for that to the next command
        connection.close()
        raise


async def _quit(connection: SMTP) -> None:
    try:
        await connection.quit(timeout=_POLITE)
    except (SMTPException, OSError):
        connection.close()
