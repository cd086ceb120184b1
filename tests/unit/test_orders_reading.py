"""Reading orders: every line is an order or a bad row told by its number, and nothing ends the reading."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import UsageError
from services.orders.reading import MAX_LINE, BadRow, Format, Row, rows

HEADER = "order_id,name,email,region,item,quantity,amount"
GOOD = "A-1,Ada,ada@example.org,North,teapot,2,49.80"


def read(*lines: str | bytes, form: Format | None = None) -> list[Row | BadRow]:
    data = b"\n".join(line.encode() if isinstance(line, str) else line for line in lines)
    return list(rows(io.BytesIO(data), form))


def a_record(**changes: object) -> str:
    record = {"order_id": "A-1", "name": "Ada", "email": "ada@example.org", "region": "North", "item": "teapot"}
    return json.dumps(record | {"quantity": 2, "amount": "49.80"} | changes)


def test_csv_and_ndjson_say_the_same() -> None:
    (from_csv,) = read(HEADER, GOOD)
    (from_json,) = read(a_record())
    assert isinstance(from_csv, Row)
    assert isinstance(from_json, Row)
    assert from_csv.order == from_json.order


def test_columns_may_stand_in_any_order_among_others() -> None:
    (row,) = read(
        "note,amount,quantity,item,region,email,name,order_id", "x,49.80,2,teapot,North,ada@example.org,Ada,A-1"
    )
    assert isinstance(row, Row)
    assert row.order.order_id == "A-1"


def test_two_spellings_of_a_region_are_one() -> None:
    found = read(HEADER, GOOD.replace("North", "North  West"), GOOD.replace("North", " north west "))
    assert [row.order.region for row in found if isinstance(row, Row)] == ["north-west", "north-west"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("A-1,Ada,ada@example.org,North,teapot,two,49.80", "quantity"),
        ("A-1,Ada,ada@example.org,North,teapot,0,49.80", "quantity"),
        ("A-1,Ada,not an address,North,teapot,2,49.80", "email"),
        ("A-1,Ada,ada@example.org,../etc,teapot,2,49.80", "region"),
        ("A-1,Ada,ada@example.org,North,teapot,2,NaN", "amount"),
        ("A-1,Ada,ada@example.org,North,teapot,2,1e99", "amount"),
        ("../1,Ada,ada@example.org,North,teapot,2,49.80", "order_id"),
        ("A-1,Ada,ada@example.org,North,teapot,2", "6 fields instead of 7"),
        ('A-1,"Ada,ada@example.org,North,teapot,2,49.80', "not CSV"),
        (b"A-1,\xff\xfe,ada@example.org,North,teapot,2,49.80", "not UTF-8"),
        ("x" * (3 * MAX_LINE), "longer than"),
        ("", None),
        ("{}", "1 fields instead of 7"),
    ],
)
def test_a_bad_row_is_told_by_its_number_and_the_next_one_is_read(line: str | bytes, problem: str | None) -> None:
    found = read(HEADER, GOOD, line, GOOD)
    bad = [row for row in found if isinstance(row, BadRow)]
    assert [(row.line, problem is not None and problem in row.problem) for row in bad] == (
        [(3, True)] if problem else []
    )
    assert [row.line for row in found if isinstance(row, Row)] == [2, 4]


@pytest.mark.parametrize(
    "line", ["{", "[]", "7", "NaN", '{"order_id": 1e400}', "[" * 100_000, "9" * 5000, a_record(amount=-1)]
)
def test_a_bad_record_is_told_by_its_number_and_the_next_one_is_read(line: str) -> None:
    found = read(a_record(), line, a_record())
    assert [(row.line, type(row)) for row in found] == [(1, Row), (2, BadRow), (3, Row)]


def test_a_bad_row_does_not_repeat_what_the_customer_wrote() -> None:
    (bad,) = read(HEADER, "A-1,Ada,secret address,North,teapot,2,49.80")
    assert isinstance(bad, BadRow)
    assert "secret" not in bad.problem


def test_a_byte_order_mark_and_windows_line_ends_are_taken() -> None:
    (row,) = rows(io.BytesIO(b"\xef\xbb\xbf" + f"{HEADER}\r\n{GOOD}\r\n".encode()))
    assert isinstance(row, Row)


@pytest.mark.parametrize("header", ["order_id,name", '"', "7"])
def test_a_first_line_without_the_columns_is_a_usage_error_that_names_them(header: str) -> None:
    with pytest.raises(UsageError, match="first line"):
        read(header, GOOD)


def test_the_form_can_be_told() -> None:
    with pytest.raises(UsageError):
        read(a_record(), form=Format.CSV)
    (bad, row) = read("not json", a_record(), form=Format.NDJSON)
    assert (type(bad), type(row)) == (BadRow, Row)


def test_an_empty_file_holds_nothing() -> None:
    assert read("", "", "") == []


@given(st.binary(max_size=2000))
def test_any_bytes_after_the_header_are_rows_or_bad_rows(noise: bytes) -> None:
    found = list(rows(io.BytesIO(HEADER.encode() + b"\n" + noise + b"\n" + GOOD.encode())))
    assert isinstance(found[-1], Row)
