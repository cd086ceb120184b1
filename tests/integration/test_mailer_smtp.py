"""The mailer's SMTP adapter against a real server: answers told apart, connections used again and replaced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from penstock import Reject
from services.mailer.ports import NotNow, Refused, TooMuch
from services.mailer.smtp import SmtpPool, SmtpServer
from tests.support.mail_server import MailServer, mail_server
from tests.support.mailing import ADA, SENDER, a_job, a_mailer
from tests.support.smtp_script import HANGS_UP, SILENT, Script, scripted
from tests.support.waiting import eventually

MAIL = b"To: ada@example.org\r\n\r\nhello\r\n"


@pytest.fixture(name="server")
async def _server() -> AsyncIterator[MailServer]:
    async with mail_server() as server:
        yield server


def a_pool(server: MailServer | Script, size: int = 2, timeout: float = 5.0) -> SmtpPool:
    where = server.server if isinstance(server, Script) else SmtpServer.parse(server.url)
    return SmtpPool(where, size, timedelta(seconds=timeout))


async def sent(server: SmtpServer, *, times: int = 1, timeout: float = 5.0) -> None:
    async with SmtpPool(server, 1, timedelta(seconds=timeout)) as pool:
        for _ in range(times):
            await pool.send(MAIL, SENDER, ADA)


async def test_a_mail_arrives_with_sender_and_recipient(server: MailServer) -> None:
    async with a_pool(server) as pool:
        await pool.send(MAIL, SENDER, ADA)
    (envelope,) = server.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == (SENDER, [ADA])
    assert server.mails[0].get_content().strip() == "hello"


@pytest.mark.parametrize("answer", ["550 5.1.1 no such user", "553 5.1.3 bad address"])
async def test_a_permanent_answer_is_a_refusal_in_the_servers_words(server: MailServer, answer: str) -> None:
    server.answers[ADA] = answer
    async with a_pool(server) as pool:
        with pytest.raises(Refused, match=answer):
            await pool.send(MAIL, SENDER, ADA)


@pytest.mark.parametrize("answer", ["451 4.7.1 come back later", "450 4.2.0 greylisted", "421 4.3.2 shutting down"])
async def test_a_temporary_answer_is_not_a_refusal(server: MailServer, answer: str) -> None:
    server.answers[ADA] = answer
    async with a_pool(server) as pool:
        with pytest.raises(NotNow, match=answer):
            await pool.send(MAIL, SENDER, ADA)


@pytest.mark.parametrize(("verdict", "expected"), [("554 5.7.1 spam", Refused), ("452 4.3.1 disk full", NotNow)])
async def test_the_answer_to_the_content_counts_as_well(
    server: MailServer, verdict: str, expected: type[Exception]
) -> None:
    server.verdict = verdict
    async with a_pool(server) as pool:
        with pytest.raises(expected, match=verdict):
            await pool.send(MAIL, SENDER, ADA)


async def test_a_demand_to_log_in_does_not_condemn_the_mail(server: MailServer) -> None:
    server.answers[ADA] = "530 5.7.0 authentication required"
    async with a_pool(server) as pool:
        with pytest.raises(NotNow, match="530"):
            await pool.send(MAIL, SENDER, ADA)


async def test_one_connection_carries_many_mails_also_after_a_refusal(server: MailServer) -> None:
    server.answers["nobody@example.org"] = "550 5.1.1 no such user"
    async with a_pool(server) as pool:
        await pool.send(MAIL, SENDER, ADA)
        with pytest.raises(Refused):
            await pool.send(MAIL, SENDER, "nobody@example.org")
        await pool.send(MAIL, SENDER, ADA)
    assert server.connections == 1
    assert len(server.mails) == 2


async def test_a_connection_that_broke_while_idle_is_replaced_unnoticed(server: MailServer) -> None:
    async with a_pool(server) as pool:
        await pool.send(MAIL, SENDER, ADA)
        server.cut()
        await pool.send(MAIL, SENDER, ADA)
    assert server.connections == 2
    assert len(server.mails) == 2


async def test_a_connection_that_breaks_in_the_middle_is_not_now(server: MailServer) -> None:
    server.hold = asyncio.Event()
    async with a_pool(server) as pool:
        sending = asyncio.create_task(pool.send(MAIL, SENDER, ADA))
        await asyncio.wait_for(server.arrived.wait(), 5)
        server.cut()
        with pytest.raises(NotNow, match="closed the connection"):
            await sending
        server.hold.set()
        await pool.send(MAIL, SENDER, ADA)


async def test_no_more_connections_are_open_than_the_pool_has_room_for(server: MailServer) -> None:
    async with a_pool(server, size=3) as pool:
        await asyncio.gather(*(pool.send(MAIL, SENDER, ADA) for _ in range(30)))
    assert server.connections == 3
    assert len(server.mails) == 30


async def test_a_server_that_never_answers_is_not_now(server: MailServer) -> None:
    server.hold = asyncio.Event()
    async with a_pool(server, timeout=0.2) as pool:
        with pytest.raises(NotNow):
            await pool.send(MAIL, SENDER, ADA)


async def test_a_cancelled_send_leaves_no_half_spoken_connection_behind(server: MailServer) -> None:
    server.hold = asyncio.Event()
    async with a_pool(server, size=1) as pool:
        sending = asyncio.create_task(pool.send(MAIL, SENDER, ADA))
        await asyncio.wait_for(server.arrived.wait(), 5)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        server.hold.set()
        await pool.send(MAIL, SENDER, ADA)
    assert server.connections == 2


async def test_a_connection_that_owes_an_answer_is_not_used_again() -> None:
    async with scripted(RCPT=[b"550 5.1.1 no such user"], RSET=SILENT) as script, a_pool(script, size=1) as pool:
        sending = asyncio.create_task(pool.send(MAIL, SENDER, ADA))
        assert await eventually(lambda: script.commands["RSET"] == 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await pool.send(MAIL, SENDER, ADA)
        assert script.connections == 2


async def test_nobody_listening_is_not_now() -> None:
    async with mail_server() as gone:
        pool = a_pool(gone)
    with pytest.raises(NotNow, match="cannot be used"):
        await pool.send(MAIL, SENDER, ADA)


async def test_a_password_is_never_sent_without_tls(server: MailServer) -> None:
    with_password = SmtpServer("127.0.0.1", server.port, user="shop", password="secret")
    async with SmtpPool(with_password, 1, timedelta(seconds=5)) as pool:
        with pytest.raises(NotNow, match="STARTTLS"):
            await pool.send(MAIL, SENDER, ADA)
    assert server.logins == []
    assert server.mails == []


async def test_a_job_becomes_a_mail_that_carries_its_id(server: MailServer) -> None:
    async with a_pool(server) as pool:
        await a_mailer(pool).send_email(a_job("0198-7c", correlation_id="run-1"))
    (mail,) = server.mails
    assert mail["Message-ID"] == "<0198-7c@penstock>"
    assert mail["X-Correlation-ID"] == "run-1"
    assert mail["Subject"] == "Welcome, Ada"


async def test_a_refused_address_rejects_the_job_in_the_servers_words(server: MailServer) -> None:
    server.answers[ADA] = "550 5.1.1 no such user"
    async with a_pool(server) as pool:
        with pytest.raises(Reject, match="no such user"):
            await a_mailer(pool).send_email(a_job())


@pytest.mark.parametrize("stage", ["MAIL", "RCPT", "DATA", "end"])
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"550 5.7.1 not from you", "550 5.7.1 not from you"),
        (b"550-5.1.1 The account does not exist. Please try\r\n550 5.1.1 again.", "550 5.1.1 The account does not"),
        (b"553 nobody of that name", "553 nobody of that name"),
        (b"553 5.6.7 SMTPUTF8 is needed for J\xfcrgen", r"553 5\.6\.7 SMTPUTF8 is needed for J\\udcfcrgen"),
        ("550 5.1.1 Jürgen gibt es nicht".encode(), "550 5.1.1 Jürgen gibt es nicht"),
        (b"554", "554"),
    ],
)
async def test_a_permanent_answer_at_any_stage_is_a_refusal_in_the_servers_words(
    stage: str, answer: bytes, words: str
) -> None:
    async with scripted(**{stage: answer}) as script:
        with pytest.raises(Refused, match=f"^{words}"):
            await sent(script.server)


async def test_a_refusal_is_kept_when_the_server_is_rude_after_it() -> None:
    for rude in (SILENT, HANGS_UP, b"421 4.3.2 bye"):
        async with scripted(RCPT=b"550 5.1.1 no such user", RSET=rude) as script:
            with pytest.raises(Refused, match="no such user"):
                await sent(script.server)


@pytest.mark.parametrize("stage", ["greeting", "MAIL", "RCPT", "end"])
async def test_too_much_is_told_apart_at_any_stage(stage: str) -> None:
    async with scripted(**{stage: b"421 4.7.0 too many mails from you"}) as script:
        with pytest.raises(TooMuch, match=r"421 4\.7\.0 too many mails from you"):
            await sent(script.server)


@pytest.mark.parametrize("greeting", [b"554 5.3.2 no mail service here", b"554-go\r\n554 away"])
async def test_a_server_that_wants_nobody_condemns_no_mail(greeting: bytes) -> None:
    async with scripted(greeting=greeting) as script:
        with pytest.raises(NotNow, match="cannot be used: 554"):
            await sent(script.server)


async def test_a_connection_that_has_served_is_replaced_when_the_server_has_had_enough_of_it() -> None:
    async with scripted(MAIL=[b"250 OK", b"421 4.7.0 too many mails on this connection"]) as script:
        await sent(script.server, times=3)
        assert (script.connections, script.commands["."]) == (2, 3)


async def test_the_server_is_told_the_size_beforehand() -> None:
    async with scripted() as script:
        await sent(script.server)
    assert f"MAIL FROM:<{SENDER}> SIZE={len(MAIL)}" in script.lines
