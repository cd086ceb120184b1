"""From lines to orders: every line is an order or a bad row with its number; nothing that comes in ends the reading."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, BinaryIO  # a row is whatever its writer put into it

from pydantic import ValidationError

from penstock import UsageError
from services.orders.model import COLUMNS, Order, words

#: The longest line that is read (bytes); what is longer is one bad row, never a full memory.
MAX_LINE = 64 * 1024


class Format(StrEnum):
    """How orders are written down."""

    CSV = "csv"
    NDJSON = "ndjson"


@dataclass(frozen=True, slots=True)
class Row:
    """A line that holds an order."""

    line: int
    order: Order


@dataclass(frozen=True, slots=True)
class BadRow:
    """A line that holds none, and why."""

    line: int
    problem: str


def rows(source: BinaryIO, form: Format | None = None) -> Iterator[Row | BadRow]:
    """Read *source* line by line and yield what each holds; empty lines are skipped. Holds one line in memory.

    One order is one line: a line break inside a CSV field is not supported, so that a forgotten quote spoils one row
    and not the rest of the file. Without *form*, a first line that begins with ``{`` means NDJSON. The first line of
    CSV names the columns, in any order; columns we do not know are ignored. Raises ``UsageError`` when it lacks some.
    """
    lines = _lines(source)
    for number, text in lines:
        if isinstance(text, BadRow):
            yield text
        elif text.strip():
            if (form or _guess(text)) is Format.NDJSON:
                yield _json_row(number, text)
                yield from _each(lines, None)
            else:
                yield from _each(lines, _header(text))
            return


def _each(lines: Iterator[tuple[int, str | BadRow]], columns: Sequence[str] | None) -> Iterator[Row | BadRow]:
    for number, text in lines:
        if isinstance(text, BadRow):
            yield text
        elif text.strip():
            yield _json_row(number, text) if columns is None else _csv_row(number, text, columns)


def _lines(source: BinaryIO) -> Iterator[tuple[int, str | BadRow]]:
    number = 0
    while data := source.readline(MAX_LINE + 1):
        number += 1
        if len(data) > MAX_LINE:
            _skip_rest(source, data)
            yield number, BadRow(number, f"the line is longer than {MAX_LINE} bytes")
            continue
        try:
            yield number, data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            yield number, BadRow(number, f"not UTF-8: {error.reason} at byte {error.start}")


def _skip_rest(source: BinaryIO, data: bytes) -> None:
    while data and not data.endswith(b"\n"):
        data = source.readline(MAX_LINE)


def _guess(text: str) -> Format:
    return Format.NDJSON if text.lstrip().startswith("{") else Format.CSV


def _header(text: str) -> Sequence[str]:
    try:
        columns = [column.strip().lower() for column in _fields(text)]
    except csv.Error as error:
        raise UsageError(f"the first line is not CSV: {error}") from error
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise UsageError(f"the first line names no column {', '.join(missing)}; expected {','.join(COLUMNS)}")
    return columns


def _csv_row(number: int, text: str, columns: Sequence[str]) -> Row | BadRow:
    try:
        fields = _fields(text)
    except csv.Error as error:
        return BadRow(number, f"not CSV: {error}")
    if len(fields) != len(columns):
        return BadRow(number, f"{len(fields)} fields instead of {len(columns)}")
    return _row(number, dict(zip(columns, fields, strict=True)))


def _fields(text: str) -> list[str]:
    return next(csv.reader([text.rstrip("\r\n")], strict=True), [])


def _json_row(number: int, text: str) -> Row | BadRow:
    try:
        return _row(number, json.loads(text))
    except json.JSONDecodeError as error:
        return BadRow(number, f"not JSON: {error.msg} at character {error.pos + 1}")
    except (ValueError, RecursionError) as error:  # a number of too many digits, nesting without end
        return BadRow(number, f"not JSON we read: {error}")


def _row(number: int, values: Any) -> Row | BadRow:
    try:
        return Row(number, Order.model_validate(values))
    except ValidationError as error:
        return BadRow(number, words(error))
