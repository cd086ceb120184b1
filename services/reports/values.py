"""What a database gives for a cell, as what its column is said to be: exact, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any  # drivers give whatever a database holds

import orjson

from services.reports.outline import Column, Row, Type, Value

#: No decimal has more digits before or after its point: one of 1E+999999 would be a megabyte in every file.
_DIGITS = 10_000

#: Reckons with all of them.
EXACT = Context(prec=3 * _DIGITS, rounding=ROUND_HALF_UP)

#: From a value that is there to what its column holds; raises one of ``_UNREADABLE``.
_Read = Callable[[Any], Value]
_UNREADABLE = (ValueError, TypeError, ArithmeticError)


class Unfit(Exception):
    """A value is not what its column is said to be; the text says which."""


class Reader:
    """Reads rows in which the *columns* stand at *positions*."""

    def __init__(self, columns: Sequence[Column], positions: Sequence[int]) -> None:
        self._columns = columns
        self._cells = [(at, _read_of(column)) for at, column in zip(positions, columns, strict=True)]

    def row(self, raw: Sequence[Any]) -> Row:
        """The cells of *raw* as the columns hold them, in their order. Raises ``Unfit``."""
        try:
            return [None if (value := raw[at]) is None else read(value) for at, read in self._cells]
        except _UNREADABLE:
            raise self._unfit(raw) from None

    def _unfit(self, raw: Sequence[Any]) -> Unfit:
        for column, (at, read) in zip(self._columns, self._cells, strict=True):
            try:
                None if raw[at] is None else read(raw[at])
            except _UNREADABLE:
                article = "an" if column.type is Type.INTEGER else "a"
                return Unfit(f"{column.name} is {raw[at]!r:.80}, not {article} {column.type}")
        raise AssertionError("a row that could not be read has a cell that cannot")


def _read_of(column: Column) -> _Read:
    if column.type is Type.DECIMAL and column.places is not None:
        step = Decimal(1).scaleb(-column.places)
        return lambda value: _decimal(value).quantize(step, context=EXACT)
    return _READS[column.type]


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, bytes | memoryview):
        return "\\x" + bytes(value).hex()
    if isinstance(value, dict | list):
        return orjson.dumps(value, default=str, option=orjson.OPT_SORT_KEYS).decode()
    return str(value)


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    number = int(value)
    if (isinstance(value, float | Decimal) and number != value) or number.bit_length() > _DIGITS:
        raise ValueError
    return number


def _decimal(value: Any) -> Decimal:
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite() or abs(number.adjusted()) > _DIGITS:
        raise ValueError
    return number


def _number(value: Any) -> float:
    number = float(value)
    if not abs(number) < float("inf"):
        raise ValueError
    return number


def _boolean(value: Any) -> bool:
    if value in (0, 1):
        return bool(value)
    raise ValueError


def _date(value: Any) -> date:
    day = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(day, date):
        raise TypeError
    return day.date() if isinstance(day, datetime) else day


def _timestamp(value: Any) -> datetime:
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(instant, datetime):
        raise TypeError
    return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)


_READS: Mapping[Type, _Read] = {
    Type.TEXT: _text,
    Type.INTEGER: _integer,
    Type.DECIMAL: _decimal,
    Type.NUMBER: _number,
    Type.BOOLEAN: _boolean,
    Type.DATE: _date,
    Type.TIMESTAMP: _timestamp,
}
