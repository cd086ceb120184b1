"""AMQP field tables: what is encoded comes back, and no bytes from outside can do harm."""

from __future__ import annotations

import decimal
import struct
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from penstock.brokers.tables import MAX_DEPTH, decode_table, encode_table
from penstock.errors import Unencodable


def decode(raw: bytes) -> dict[str, Any]:
    return decode_table(raw, 0, len(raw))


def field(name: bytes, kind: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + kind + value


def sized(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SCALARS = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False)
    | st.none()
    | st.binary()
    | st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)).map(
        lambda instant: instant.replace(microsecond=0)
    )
    | st.decimals(min_value=-(10**6), max_value=10**6, places=3)
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=6)


@settings(max_examples=40)
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_a_table_comes_back_as_it_was_encoded(table: dict[str, Any]) -> None:
    assert decode(encode_table(table)) == table


@given(st.binary(max_size=300), st.integers(0, 300))
@example(b"\x01aF\xff\xff\xff\xff", 7)
@example(b"\x01aS\x00\x00\x00\x05abc", 11)
def test_bytes_from_anywhere_never_raise_nor_are_read_beyond_their_end(raw: bytes, cut: int) -> None:
    stop = min(cut, len(raw))
    assert repr(decode_table(raw, 0, stop)) == repr(decode_table(raw[:stop], 0, stop))


@settings(max_examples=40)
@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=4), st.data())
def test_a_table_with_one_broken_byte_is_still_read_to_some_end(table: dict[str, Any], data: st.DataObject) -> None:
    raw = bytearray(encode_table(table))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    assert isinstance(decode(bytes(raw)), dict)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (b"t", b"\x01", True),
        (b"b", b"\xff", -1),
        (b"B", b"\xff", 255),
        (b"s", b"\xff\xfe", -2),
        (b"U", b"\xff\xfe", -2),
        (b"u", b"\xff\xfe", 65534),
        (b"I", b"\xff\xff\xff\xfe", -2),
        (b"i", b"\xff\xff\xff\xfe", 4294967294),
        (b"l", b"\xff" * 8, -1),
        (b"L", b"\xff" * 8, -1),
        (b"f", struct.pack(">f", 0.5), 0.5),
        (b"d", struct.pack(">d", 0.1), 0.1),
        (b"D", b"\x02\x00\x00\x00\x7b", decimal.Decimal("1.23")),
        (b"D", b"\xff\xff\xff\xff\xff", decimal.Decimal(-1).scaleb(-255)),
        (b"T", struct.pack(">Q", 0), datetime(1970, 1, 1, tzinfo=UTC)),
        (b"V", b"", None),
        (b"x", sized(b"\xff"), b"\xff"),
    ],
)
def test_every_type_of_the_dialect_is_read(kind: bytes, value: bytes, expected: object) -> None:
    assert decode(field(b"a", kind, value) + field(b"b", b"t", b"\x01")) == {"a": expected, "b": True}


@pytest.mark.parametrize("seconds", [253_402_300_800, 1_700_000_000_000, (1 << 64) - 1])
def test_a_timestamp_that_is_no_date_becomes_none(seconds: int) -> None:
    assert decode(field(b"a", b"T", struct.pack(">Q", seconds)) + field(b"b", b"V", b"")) == {"a": None, "b": None}


def test_text_that_is_not_utf8_stays_bytes_and_a_name_that_is_not_is_left_out() -> None:
    raw = field(b"a", b"S", sized(b"\xff\xfe")) + field(b"\xff", b"t", b"\x01") + field(b"b", b"t", b"\x01")
    assert decode(raw) == {"a": b"\xff\xfe", "b": True}


def test_an_unknown_type_costs_the_rest_of_its_table_only() -> None:
    inner = field(b"x", b"t", b"\x01") + field(b"y", b"?", b"\x00") + field(b"z", b"t", b"\x01")
    raw = field(b"a", b"F", sized(inner)) + field(b"b", b"t", b"\x01")
    assert decode(raw) == {"a": {"x": True}, "b": True}


@pytest.mark.parametrize("kind", [b"A", b"F"])
def test_what_is_nested_too_deep_becomes_none_by_its_length(kind: bytes) -> None:
    value = b""
    for _ in range(2_000):
        value = sized(kind + value if kind == b"A" else field(b"", kind, value)) if value else sized(b"")
    read = decode(field(b"a", kind, value) + field(b"b", b"t", b"\x01"))
    assert read["b"] is True
    depth, node = 0, read["a"]
    while node:
        depth, node = depth + 1, node[0] if kind == b"A" else node[""]
    assert depth == MAX_DEPTH
    assert node is None


class Level(IntEnum):
    HIGH = 3


def test_relatives_of_known_types_are_carried() -> None:
    table = {"enum": Level.HIGH, "tuple": (1, "a"), "naive": datetime(2026, 1, 1), "buffer": bytearray(b"x")}
    expected = {"enum": 3, "tuple": [1, "a"], "naive": datetime(2026, 1, 1, tzinfo=UTC), "buffer": b"x"}
    assert decode(encode_table(table)) == expected


def itself() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        object(),
        1 << 63,
        -(1 << 63) - 1,
        "\ud800",
        decimal.Decimal("NaN"),
        decimal.Decimal("1e300"),
        decimal.Decimal("12345678901.5"),
        datetime(1969, 12, 31, tzinfo=UTC),
        itself(),
        {"k" * 256: 1},
        {1: 2},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_amqp_cannot_carry_is_refused_by_the_name_of_its_header(value: object) -> None:
    with pytest.raises(Unencodable, match="header 'guilty'"):
        encode_table({"fine": 1, "guilty": value})
