"""What is kept of a report's rows while they pass: how many, totals, the sums of the chart, the first few. No more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import islice
from typing import Any, TypeAlias  # labels of one chart have one type, whichever it is

from services.reports.outline import Bucket, Chart, ChartKind, Outline, Row, Value
from services.reports.spelling import spelled
from services.reports.values import EXACT

#: Labels in one chart: with more, it is the wrong column, and would take memory without end.
MAX_LABELS = 10_000

#: Characters of a text that are kept: no page shows as many, and a few texts may be as large as the memory.
MAX_TEXT = 400

Number: TypeAlias = int | float | Decimal

#: How dates and instants are told once they are put together.
_FORMATS = {Bucket.DAY: "%Y-%m-%d", Bucket.MONTH: "%Y-%m", Bucket.YEAR: "%Y"}


class TooManyLabels(Exception):
    """The chart's label column tells far too many things apart; the text says which."""


@dataclass(frozen=True, slots=True)
class Sums:
    """A chart's sums by label, as they are drawn. *others*: how many are not, and what they come to."""

    labels: tuple[str, ...]
    values: tuple[Number, ...]
    others: int = 0
    rest: Number = 0


class Tally:
    """Counts and adds up the rows of one report."""

    def __init__(self, outline: Outline) -> None:
        self.rows = 0
        self.first: list[Row] = []
        self._outline = outline
        self._totals: dict[int, Number] = {at: 0 for at, column in enumerate(outline.columns) if column.total}
        self._sums: dict[Value, Number] = {}
        self._chart = None if outline.chart is None else _Grouping(outline, outline.chart)

    def add(self, rows: Sequence[Row]) -> None:
        """Take note of further *rows*. Raises ``TooManyLabels``."""
        self.first += map(_shortened, islice(rows, max(self._outline.pdf_rows - self.rows, 0)))
        self.rows += len(rows)
        for at in self._totals:
            self._totals[at] = _sum(self._totals[at], (row[at] for row in rows))
        if self._chart is not None:
            self._group(self._chart, rows)

    def totals(self) -> Row | None:
        """A total for each column that has one, None for the others; None when no column has one."""
        return [self._totals.get(at) for at in range(len(self._outline.columns))] if self._totals else None

    def sums(self) -> Sums | None:
        """What the chart shows; None without one, or without anything to show."""
        chart = self._outline.chart
        if chart is None or not self._sums:
            return None
        if chart.kind is ChartKind.LINE:
            found, left = sorted(self._sums.items(), key=lambda pair: _rank(pair[0])), []
        else:
            largest = sorted(self._sums.items(), key=lambda pair: (-pair[1], _rank(pair[0])))
            found, left = largest[: chart.top], largest[chart.top :]
        labels = tuple(spelled(label) or "-" for label, _ in found)
        return Sums(labels, tuple(value for _, value in found), len(left), _sum(0, (value for _, value in left)))

    def _group(self, chart: _Grouping, rows: Sequence[Row]) -> None:
        sums = self._sums
        for row in rows:
            label, value = chart.label(row), chart.value(row)
            sums[label] = _plus(sums.get(label, 0), value)
        if len(sums) > MAX_LABELS:
            name = self._outline.chart.label if self._outline.chart else ""
            raise TooManyLabels(f"the chart's label {name} has more than {MAX_LABELS} different values")


class _Grouping:
    """Takes label and value of a chart out of a row."""

    def __init__(self, outline: Outline, chart: Chart) -> None:
        self._label = outline.place(chart.label)
        self._value = None if chart.value is None else outline.place(chart.value)
        self._format = None if chart.by is None else _FORMATS[chart.by]

    def label(self, row: Row) -> Value:
        found = row[self._label]
        if isinstance(found, str):
            return found[:MAX_TEXT]
        return found.strftime(self._format) if self._format and isinstance(found, date) else found

    def value(self, row: Row) -> Number:
        found = 1 if self._value is None else row[self._value]
        return found if isinstance(found, int | float | Decimal) else 0


def _shortened(row: Row) -> Row:
    return [cell[:MAX_TEXT] if isinstance(cell, str) else cell for cell in row]


def _sum(start: Number, values: Iterable[Value]) -> Number:
    """*start* and the *values* that are there, added up; of decimals no digit is lost."""
    for value in values:
        if isinstance(value, int | float | Decimal):
            start = _plus(start, value)
    return start


def _plus(one: Number, other: Number) -> Number:
    if isinstance(one, Decimal) or isinstance(other, Decimal):
        return EXACT.add(Decimal(one), Decimal(other))
    return one + other


def _rank(label: Value) -> tuple[bool, Any]:
    return label is not None, label
