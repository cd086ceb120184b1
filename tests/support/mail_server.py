"""A real SMTP server on the test's event loop that answers as it is told and keeps what it accepts."""

from __future__ import annotations

import asyncio
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

OK = "250 OK"


class MailServer:
    """``answers`` to RCPT by recipient, or by ``@domain``, and ``verdict`` to DATA may be changed at any time."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: dict[str, str] = {}
        self.verdict = OK
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []
        #: What clients logged in with.
        self.logins: list[object] = []
        #: Set when a message has come; while ``hold`` is set, its answer waits.
        self.arrived = asyncio.Event()
        self.hold: asyncio.Event | None = None
        #: Recipients in these domains are answered when the event is set.
        self.held: dict[str, asyncio.Event] = {}
        self._sessions: list[SMTP] = []

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections were ever made."""
        return len(self._sessions)

    def to(self, domain: str) -> list[EmailMessage]:
        """The mails that it took for *domain*."""
        return [mail for mail in self.mails if str(mail["To"]).endswith(f"@{domain}")]

    def cut(self) -> None:
        """Break every connection without a word."""
        for session in self._sessions:
            if isinstance(session.transport, asyncio.Transport):
                session.transport.abort()

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        domain = address.rpartition("@")[2]
        if domain in self.held:
            await self.held[domain].wait()
        answer = self.answers.get(address) or self.answers.get(f"@{domain}", OK)
        if answer == OK:
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.arrived.set()
        if self.hold is not None:
            await self.hold.wait()
        if self.verdict == OK:
            self.envelopes.append(envelope)
            self.mails.append(_parsed(envelope))
        return self.verdict

    def session(self) -> SMTP:
        found = SMTP(
            self,
            hostname="mail.test",
            loop=asyncio.get_running_loop(),
            auth_require_tls=False,  # so that a client that would send its password in the clear is caught doing it
            authenticator=self._log_in,
        )
        self._sessions.append(found)
        return found

    def _log_in(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, login: object) -> AuthResult:
        self.logins.append(login)
        return AuthResult(success=True)


def _parsed(envelope: Envelope) -> EmailMessage:
    assert isinstance(envelope.content, bytes)
    found = message_from_bytes(envelope.content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


@asynccontextmanager
async def mail_server(port: int = 0) -> AsyncIterator[MailServer]:
    """A server on the loopback address; its connections end with it."""
    found = MailServer()
    listening = await asyncio.get_running_loop().create_server(found.session, "127.0.0.1", port)
    found.port = listening.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        listening.close()
        found.cut()
        await listening.wait_closed()
