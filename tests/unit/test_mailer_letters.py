"""What a job can and cannot put into a mail, and what a mailer's environment may say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import ConfigError, Job, Reject, SchemaError
from penstock_jobs.email import SEND_EMAIL, SendEmail
from services.mailer.letters import letter
from services.mailer.settings import Settings
from services.mailer.smtp import SmtpServer
from services.mailer.templates import TemplateProblem, Templates, Text
from tests.support.mailing import SENDER, a_mailer, read_back

EVIL = "x\r\nBcc: victim@example.org\r\n\r\nspam"
HEADERS = {
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "X-Correlation-ID",
    "Auto-Submitted",
    "Content-Type",
    "Content-Transfer-Encoding",
    "MIME-Version",
}


def a_job(job_id: str = "1", correlation_id: str | None = None, **values: str) -> Job[SendEmail]:
    args = SendEmail(to="ada@example.org", template="order_confirmation", values={**values})
    return Job(job_id, "email.send", args, correlation_id=correlation_id)


@given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=300))
def test_no_id_and_no_subject_can_add_a_header(job_id: str, correlation_id: str, subject: str) -> None:
    text = Templates().render("order_confirmation", {"name": "A", "item": subject, "quantity": 1, "total": "1.00"})
    mail = read_back(letter(a_job(job_id, correlation_id), text, SENDER))
    assert set(mail.keys()) <= HEADERS
    assert len(mail.keys()) == len(set(mail.keys()))
    assert mail["To"] == "ada@example.org"
    assert not mail.defects


def test_line_breaks_in_a_value_stay_inside_the_subject() -> None:
    text = Templates().render("order_confirmation", {"name": EVIL, "item": EVIL, "quantity": 1, "total": "1.00"})
    mail = read_back(letter(a_job(EVIL, EVIL), text, SENDER))
    assert mail["Bcc"] is None
    assert "victim@example.org" not in str(mail["To"])


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "ada@",
        "@example.org",
        "a b@example.org",
        "a@b\r\nBcc: c@d",
        "a@b\n",
        "Ada <a@b.c>",
        "a@b,c@d",
        "a@-b",
    ],
)
def test_what_is_no_plain_address_breaks_the_schema(address: str) -> None:
    with pytest.raises(SchemaError, match="to: "):
        SEND_EMAIL.decode(b'{"to": %s, "template": "welcome"}' % _json(address))


@pytest.mark.parametrize("name", ["../secrets", "/etc/passwd", "welcome.txt", "", "Welcome", "a\x00"])
def test_what_is_no_template_name_breaks_the_schema(name: str) -> None:
    with pytest.raises(SchemaError, match="template: "):
        SEND_EMAIL.decode(b'{"to": "a@b.c", "template": %s}' % _json(name))


def test_the_message_id_is_the_job_id() -> None:
    mail = read_back(letter(a_job("0198f7c2-0000-7000-8000-000000000001"), Text("s", "p"), SENDER))
    assert mail["Message-ID"] == "<0198f7c2-0000-7000-8000-000000000001@penstock>"


def test_long_ids_stay_in_one_piece() -> None:
    mail = letter(a_job("7" * 150, "8" * 150), Text("s", "p"), SENDER)
    assert f"Message-ID: <{'7' * 150}@penstock>\r\n".encode() in mail
    assert f"X-Correlation-ID: {'8' * 150}\r\n".encode() in mail


def test_very_long_ids_that_begin_alike_are_told_apart() -> None:
    job_ids = ["7" * 250, "7" * 249 + "8", "ä" * 100, "ä" * 99 + "ö"]
    mails = [read_back(letter(a_job(job_id, job_id), Text("s", "p"), SENDER)) for job_id in job_ids]
    for header in ("Message-ID", "X-Correlation-ID"):
        found = {str(mail[header]) for mail in mails}
        assert len(found) == len(job_ids)
        assert max(map(len, found)) <= 200 + len("<@penstock>")


@pytest.mark.parametrize("text", ["x" * 2000, "Grüße\n" * 100, "ä" * 2000, ". \n.\n.."])
def test_any_server_takes_what_is_sent(text: str) -> None:
    mail = letter(a_job(), Text("Grüße", text, f"<p>{text}</p>"), SENDER)
    _, _, body = mail.partition(b"\r\n\r\n")
    assert mail.isascii()
    assert max(map(len, body.split(b"\r\n"))) <= 78
    part = read_back(mail).get_body(("plain",))
    assert part is not None
    assert part.get_content().replace("\r\n", "\n").rstrip("\n") == text.rstrip("\n")


@pytest.mark.parametrize("job_id", ["a..b", ".a", "a.", "", "a b", "<>", "\r\n", "schedule:nightly:2026-07-01T00:00Z"])
def test_any_id_makes_a_message_id_without_defects(job_id: str) -> None:
    mail = read_back(letter(a_job(job_id), Text("s", "p"), SENDER))
    assert mail["Message-ID"].defects == ()
    assert str(mail["Message-ID"]).endswith("@penstock>")


def test_html_is_escaped_and_plain_text_is_not() -> None:
    text = Templates().render("order_confirmation", {"name": "<b>", "item": "a & b", "quantity": 1, "total": "1.00"})
    assert "Dear <b>," in text.plain
    assert text.html is not None
    assert "Dear &lt;b&gt;," in text.html
    assert "a &amp; b" in text.html


def test_a_missing_value_is_a_problem_that_names_it() -> None:
    with pytest.raises(TemplateProblem, match="'quantity' is undefined"):
        Templates().render("order_confirmation", {"name": "Ada", "item": "teapot"})


def test_a_template_outside_the_folder_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "inside").mkdir()
    with pytest.raises(TemplateProblem, match="no mail template"):
        Templates(tmp_path / "inside").render("../secret", {})


async def test_a_mail_that_cannot_be_written_is_rejected_before_anything_is_sent() -> None:
    class Unused:
        async def send(self, mail: bytes, sender: str, recipient: str) -> None:
            raise AssertionError(f"{sender} sent {mail!r} to {recipient}")

    with pytest.raises(Reject, match="'quantity' is undefined"):
        await a_mailer(Unused()).send_email(a_job(name="Ada"))


def test_every_example_of_the_catalogue_can_be_written() -> None:
    examples = SEND_EMAIL.schema()["examples"]
    subjects = [Templates().render(one["template"], one["values"]).subject for one in examples]
    assert subjects == ["Welcome, Ada", "Your order: 2 × teapot", "Sales in July"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail.test", SmtpServer("mail.test", 25)),
        ("smtps://mail.test", SmtpServer("mail.test", 465, tls=True)),
        ("smtp://shop:a%40b@mail.test:587", SmtpServer("mail.test", 587, user="shop", password="a@b")),
    ],
)
def test_an_smtp_url_says_where_and_who(url: str, expected: SmtpServer) -> None:
    assert SmtpServer.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://secret@mail.test",
        "smtp://",
        "smtp://u:secret@h:port",
        "smtp://h/secret",
        "smtp://:secret@h",
        "smtp://[secret",
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SmtpServer.parse(url)
    assert "MAILER_SMTP_URL" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_all_wrong_settings_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILER_SLOTS", "many")
    monkeypatch.setenv("MAILER_TIMEOUT", "0")
    monkeypatch.setenv("MAILER_SENDER", "nobody")
    with pytest.raises(ConfigError) as caught:
        Settings.read()
    named = [problem.partition(":")[0] for problem in caught.value.problems]
    assert named == ["MAILER_SENDER", "MAILER_SLOTS", "MAILER_TIMEOUT"]


def test_retries_follow_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FIRST": "1", "FACTOR": "2", "CAP": "4"}.items():
        monkeypatch.setenv(f"MAILER_RETRY_{name}", value)
    policy = Settings.read().retry_policy()
    assert [policy.delay_after(n).total_seconds() for n in (1, 2, 3, 4)] == [1, 2, 4, 4]


def _json(text: str) -> bytes:
    return json.dumps(text).encode()
