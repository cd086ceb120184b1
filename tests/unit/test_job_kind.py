"""A kind's arguments on the wire: what is accepted, and how everything else is refused in one line."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, field_validator
from typing_extensions import TypedDict

from penstock import DecodeError, JobKind, MessageError, RegistrationError, SchemaError
from penstock.job import json_object


class Mail(BaseModel):
    """Arguments as a pydantic model."""

    to: str
    copies: int = 1


class Strict(BaseModel):
    """Arguments that forbid what they do not know."""

    model_config = ConfigDict(extra="forbid")
    to: str


class Angry(BaseModel):
    """Arguments whose own validator fails for no fault of the message's."""

    to: str

    @field_validator("to")
    @classmethod
    def _look_up(cls, value: str) -> str:
        return {"ada": "ada@example.org"}[value]


@dataclass
class Report:
    """Arguments as a dataclass."""

    region: str
    when: datetime


class Sync(TypedDict):
    """Arguments as a typed dict."""

    table: str
    rows: int


class Many(TypedDict):
    """Many ways to be wrong."""

    a: int
    b: int
    c: int
    d: int
    e: int
    f: int
    g: int


@dataclass
class Unreadable:
    """Arguments no JSON can hold."""

    lock: threading.Lock


MAIL = JobKind("email.send", Mail)
PLAIN: JobKind[dict[str, Any]] = JobKind("plain.any", dict)

plain_values = st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53)
values = st.recursive(
    plain_values, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3), max_leaves=5
)

HOSTILE = {
    "nothing at all": b"",
    "white space": b" \n",
    "malformed": b'{"to": ada}',
    "truncated": b'{"to": "ada@exam',
    "two documents": b'{"to": "a"}{"to": "b"}',
    "byte order mark": b'\xef\xbb\xbf{"to": "a"}',
    "UTF-16": '{"to": "a"}'.encode("utf-16"),
    "NaN": b'{"to": "a", "unknown": NaN}',
    "Infinity": b'{"to": "a", "unknown": Infinity}',
    "minus Infinity": b'{"to": "a", "unknown": -Infinity}',
    "invalid UTF-8": b'{"to": "caf\xe9"}',
    "invalid UTF-8 in a key": b'{"\xff": 1, "to": "a"}',
    "a lone surrogate": b'{"to": "\\ud800"}',
    "NUL": b'{"to": "a"}\x00',
    "nesting 100,000 deep": b'{"to": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "open nesting 100,000 deep": b"[" * 100_000,
    "objects 100,000 deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "an array": b'["a"]',
    "a text": b'"a"',
    "a number": b"1",
    "null": b"null",
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x02to\x94\x8c\x01a\x94s.",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("kind", [MAIL, PLAIN, JobKind("sync.run", Sync)], ids=["model", "dict", "typed dict"])
def test_a_body_that_is_no_json_object_is_a_decode_error_in_one_line(kind: JobKind[Any], body: bytes) -> None:
    with pytest.raises(DecodeError) as refused:
        kind.decode(body)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_but_a_message_error(body: bytes) -> None:
    for kind in (MAIL, PLAIN):
        try:
            args = kind.decode(body)
        except MessageError:
            continue
        assert isinstance(args, Mail | dict)


@settings(max_examples=50)
@given(st.dictionaries(st.text(), values, max_size=3))
def test_any_json_object_comes_back_as_it_went(args: dict[str, Any]) -> None:
    assert PLAIN.decode(PLAIN.encode(args)) == args
    assert json_object(json.dumps(args).encode()) == args


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (MAIL, Mail(to="ada@example.org", copies=2)),
        (JobKind("report.region", Report), Report("north", datetime(2026, 8, 1, 12))),
        (JobKind("sync.run", Sync), Sync(table="orders", rows=3)),
        (PLAIN, {"nested": {"list": [1, 2.5, None, True, "é"]}}),
    ],
    ids=["model", "dataclass", "typed dict", "dict"],
)
def test_arguments_come_back_equal_and_of_their_type(kind: JobKind[Any], args: object) -> None:
    body = kind.encode(args)
    assert isinstance(json.loads(body), dict)
    assert kind.decode(body) == args
    assert type(kind.decode(body)) is type(args)


def test_unknown_fields_are_ignored_unless_the_type_forbids_them() -> None:
    body = b'{"to": "a", "priority": 9}'
    assert MAIL.decode(body) == Mail(to="a")
    with pytest.raises(SchemaError, match="priority"):
        JobKind("email.strict", Strict).decode(body)


def test_a_missing_or_wrong_field_is_a_schema_error_that_names_it_but_not_its_value() -> None:
    with pytest.raises(SchemaError, match=r"copies: .*integer") as refused:
        MAIL.decode(b'{"to": "ada", "copies": "s3cret"}')
    assert "s3cret" not in str(refused.value)
    with pytest.raises(SchemaError, match="to: Field required"):
        MAIL.decode(b"{}")


def test_many_problems_are_counted_instead_of_listed() -> None:
    with pytest.raises(SchemaError, match=r"a: Field required; .*; and 2 more$"):
        JobKind("many.fields", Many).decode(b"{}")


def test_a_foreign_error_in_a_validator_is_not_swallowed() -> None:
    with pytest.raises(KeyError):
        JobKind("email.angry", Angry).decode(b'{"to": "bob"}')


def test_whole_numbers_beyond_64_bits_are_kept_or_refused_but_never_bent() -> None:
    assert PLAIN.decode(b'{"n": 18446744073709551616}') == {"n": 2**64}


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (MAIL, {"to": "ada"}),
        (PLAIN, Mail(to="ada")),
        (PLAIN, ["ada"]),
        (PLAIN, {"when": object()}),
        (PLAIN, {1: "a key that is no text"}),
        (JobKind("sync.run", Sync), "ada"),
    ],
    ids=["dict for model", "model for dict", "list for dict", "unwritable value", "unwritable key", "text"],
)
def test_arguments_of_another_type_are_refused_before_they_are_sent(kind: JobKind[Any], args: object) -> None:
    with pytest.raises(SchemaError, match=kind.name):
        kind.encode(args)


@pytest.mark.parametrize(
    "name",
    ["", ".", "a.", ".a", "a..b", "Email.send", "email send", "email.*", "email.#", "é", "a-b", "a\n", "x" * 201],
)
def test_a_name_that_cannot_be_a_routing_key_is_no_kind(name: str) -> None:
    with pytest.raises(RegistrationError, match="cannot be a kind"):
        JobKind(name, dict)


def test_a_name_of_200_bytes_is_a_kind() -> None:
    assert JobKind("x" * 200, dict).name == "x" * 200


def test_a_new_job_remembers_what_it_was_asked_for() -> None:
    new = MAIL.new(Mail(to="ada"), id="order-7", delay=timedelta(seconds=5), correlation_id="c")
    assert (new.kind, new.id, new.delay, new.correlation_id) == (MAIL, "order-7", timedelta(seconds=5), "c")


def test_a_type_that_pydantic_cannot_read_is_found_before_the_first_job() -> None:
    with pytest.raises(RegistrationError, match=r"email.odd cannot take Unreadable: Unable to generate"):
        JobKind("email.odd", Unreadable).check()
    MAIL.check()
    PLAIN.check()
