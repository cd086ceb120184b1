"""Letters as lines of JSON: what is read back is what was written, and every other line is refused in words."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.letter_lines import line_of, read_line
from penstock.letters import DeadLetter
from penstock.message import Delivery, Message
from penstock.redaction import redacted

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.datetimes(timezones=st.just(UTC))
    | st.decimals(allow_nan=False, allow_infinity=False, places=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(["$bytes", "$time", "$table"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def letter(message: Message) -> DeadLetter:
    return DeadLetter.of(Delivery(message, "jobs.email.dead", "jobs.dead", "jobs.email", 1))


@given(st.binary(max_size=60), st.dictionaries(st.text(min_size=1, max_size=12), _VALUES, max_size=4), st.text())
def test_what_is_read_is_what_was_written(body: bytes, headers: dict[str, Any], job_id: str) -> None:
    message = Message(body, headers, message_id=job_id, type="email.send", timestamp=5, app_id="orders")
    line = line_of(letter(message))
    assert "\n" not in line
    assert read_line(line) == ("jobs.email.dead", message)


def test_a_line_can_be_read_by_people_and_other_programs() -> None:
    headers = {"when": datetime(2026, 1, 2, tzinfo=UTC), "raw": b"\xff", "price": Decimal("1.50")}
    found = json.loads(line_of(letter(Message(b'{"to": "ada"}', headers, message_id="7"))))
    assert found["body"] == '{"to": "ada"}'
    assert found["headers"] == {
        "when": {"$time": "2026-01-02T00:00:00+00:00"},
        "raw": {"$bytes": "/w=="},
        "price": {"$decimal": "1.50"},
    }


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "{",
        "{}",
        '{"queue": 5, "body": "", "headers": {}}',
        '{"queue": "jobs.email.dead", "headers": {}}',
        '{"queue": "jobs.email.dead", "body": 5, "headers": {}}',
        '{"queue": "jobs.email.dead", "body": {"$bytes": "?"}, "headers": {}}',
        '{"queue": "jobs.email.dead", "body": "", "headers": {"n": {"$time": "yesterday"}}}',
        '{"queue": "jobs.email.dead", "body": "", "headers": {"n": {"$decimal": "much"}}}',
        '{"queue": "jobs.email.dead", "body": "", "headers": {}, "type": 7}',
        '{"queue": "jobs.email.dead", "body": "", "headers": {}, "timestamp": "now"}',
        "[" * 100_000,
    ],
)
def test_every_other_line_is_refused_in_a_line(line: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_line(line)
    assert "penstock dead export" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_redaction_reaches_every_depth_and_leaves_the_rest() -> None:
    value = {"to": "ada", "auth": [{"API_Key": "k", "iban": "DE1"}], "url": "amqp://u:p@h/", "password": None}
    assert redacted(value, frozenset({"iban"})) == {
        "to": "ada",
        "auth": [{"API_Key": "***", "iban": "***"}],
        "url": "amqp://u:***@h/",
        "password": None,
    }
