"""What a report looks like, whatever it is about: its title, its columns and its chart. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TypeAlias

#: What a cell holds. Instants have their zone, which is UTC; a boolean is no number here.
Value: TypeAlias = str | bool | int | float | Decimal | date | datetime | None
Row: TypeAlias = Sequence[Value]

#: Rows of the table in a PDF, unless a report says otherwise.
PDF_ROWS = 500

#: Bars of a chart, unless a report says otherwise.
TOP = 10


class Type(StrEnum):
    """What a column or a parameter is."""

    TEXT = "text"
    INTEGER = "integer"
    #: Exact, with as many digits as it has.
    DECIMAL = "decimal"
    #: As computers reckon, with some 15 digits.
    NUMBER = "number"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"


NUMERIC = frozenset({Type.INTEGER, Type.DECIMAL, Type.NUMBER})
TEMPORAL = frozenset({Type.DATE, Type.TIMESTAMP})


class ChartKind(StrEnum):
    """How a chart is drawn: the largest sums as bars, or sums in the order of their labels as a line."""

    BAR = "bar"
    LINE = "line"


class Bucket(StrEnum):
    """What dates and instants are put together by."""

    DAY = "day"
    MONTH = "month"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its *name* in the data, its *label* for people, and whether its *total* is told.

    *places*: digits after the point of a decimal, to which it is rounded half up; None leaves it as it is.
    """

    name: str
    type: Type = Type.TEXT
    label: str = ""
    places: int | None = None
    total: bool = False

    @property
    def heading(self) -> str:
        """What people read above it. Instants are in UTC, and say so."""
        words = self.label or self.name.replace("_", " ").capitalize()
        return f"{words} (UTC)" if self.type is Type.TIMESTAMP else words


@dataclass(frozen=True, slots=True)
class Chart:
    """The sums of column *value* (None: how many rows) by what column *label* says, dates and instants *by* a time.

    *top*: so many of the largest are drawn as bars; a line has all of them.
    """

    label: str
    value: str | None = None
    kind: ChartKind = ChartKind.BAR
    by: Bucket | None = None
    top: int = TOP


@dataclass(frozen=True, slots=True)
class Outline:
    """A report without its rows. *note*: a line under the title. *pdf_rows*: rows in the table of a PDF, at most."""

    title: str
    columns: tuple[Column, ...]
    chart: Chart | None = None
    note: str = ""
    pdf_rows: int = PDF_ROWS

    def place(self, name: str) -> int:
        """Which column has that *name*."""
        return [column.name for column in self.columns].index(name)
