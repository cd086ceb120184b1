"""What a mail server's answers mean: never, not now, or too much for now."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mailer.answers import meaning
from services.mailer.ports import NotNow, TooMuch


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (421, "4.7.28 Our system has detected an unusual rate of unsolicited mail"),
        (421, "4.7.0 mx.test Error: too many connections from 192.0.2.1"),
        (421, "Service not available, closing transmission channel"),
        (450, "4.7.1 Error: too much mail from 192.0.2.1"),
        (451, "4.7.650 The mail server has been temporarily rate limited"),
        (451, "4.3.2 the mail system is down for a moment"),
        (451, "4.4.5 congestion"),
        (452, "4.5.3 Too many recipients"),
        (450, "Requested action not taken: connection rate limit exceeded"),
        (451, "messages to example.org are being throttled"),
    ],
)
def test_a_domain_that_wants_to_be_left_alone_is_understood(code: int, words: str) -> None:
    assert isinstance(meaning(code, words), TooMuch)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (450, "4.2.0 greylisted, come back in 5 minutes"),
        (451, "4.7.1 Greylisting in action, please come back later"),
        (421, "4.7.0 gray listed by policy, try again"),
        (452, "4.2.2 mailbox is full"),
        (450, "4.2.1 The user you are trying to contact is receiving mail too quickly"),
        (450, "4.1.8 sender address rejected: domain not found"),
    ],
)
def test_what_is_said_of_one_mail_says_nothing_of_its_domain(code: int, words: str) -> None:
    found = meaning(code, words)
    assert isinstance(found, NotNow)
    assert found.own
    assert not isinstance(found, TooMuch)


@pytest.mark.parametrize(
    ("code", "words"),
    [(451, "4.3.0 local error"), (452, "4.3.1 disk full"), (535, "5.7.8 wrong"), (530, "login first"), (299, "what?")],
)
def test_trouble_that_may_pass_is_neither(code: int, words: str) -> None:
    found = meaning(code, words)
    assert type(found) is NotNow
    assert not found.own


def test_several_lines_become_one_that_says_the_status_once() -> None:
    words = "5.1.1 The account that you tried to reach does not exist.\r\n5.1.1 Please check the address:\n\n5.1.1 bye"
    assert str(meaning(550, words)) == (
        "550 5.1.1 The account that you tried to reach does not exist. Please check the address: bye"
    )


@given(st.integers(400, 599), st.text(max_size=3000))
def test_whatever_a_server_says_is_short_printable_and_begins_with_its_code(code: int, words: str) -> None:
    said = str(meaning(code, words))
    assert said.startswith(str(code))
    assert len(said) <= 1004
    assert said.isprintable()
    said.encode()
