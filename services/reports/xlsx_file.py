"""Rows as an Excel workbook, written as they come: texts as texts, numbers as numbers where no digit is lost by it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from xlsxwriter import Workbook  # type: ignore[import-untyped]
from xlsxwriter.exceptions import FileCreateError  # type: ignore[import-untyped]
from xlsxwriter.worksheet import Worksheet  # type: ignore[import-untyped]

from services.reports.outline import Column, Outline, Row, Type, Value
from services.reports.spelling import spelled

#: Rows that a sheet has below its headings: https://support.microsoft.com/office/1672b34d-7043-467e-8e27-269d656771c3
MAX_ROWS = 1_048_575

#: Characters that a cell takes, those beyond U+FFFF counted twice.
_LONGEST = 32_767

#: Excel reckons with so many digits, and up to there; what has more or is larger is written as text.
_DIGITS = 15
_LARGEST = 10**300

#: Its days begin in 1900, of which it counts the first two months wrong; what is earlier is written as text.
_FIRST_YEAR = 1901

#: The file says when it was made; the same rows have to give the same bytes.
_MADE = datetime(2000, 1, 1, tzinfo=UTC)

#: Widths of columns, in characters.
_WIDEST = 60
_WIDTHS = {Type.TEXT: 32, Type.TIMESTAMP: 20}
_FORMATS = {Type.DATE: "yyyy-mm-dd", Type.TIMESTAMP: "yyyy-mm-dd hh:mm:ss"}


class XlsxFile:
    """Writes rows to the workbook at *path*, on as many sheets as they take, of *max_rows* each.

    *scratch*: a folder for its parts, which take some twenty times the room of the workbook until that is closed.
    Raises ``OSError`` when the disk is full.
    """

    def __init__(self, path: Path, outline: Outline, scratch: Path, max_rows: int = MAX_ROWS) -> None:
        self.sheets = 0
        #: Texts that were longer than a cell takes.
        self.cut = 0
        self._outline = outline
        self._max_rows = max_rows
        self._book = Workbook(str(path), {"constant_memory": True, "tmpdir": str(scratch)})
        self._book.use_zip64()
        self._book.set_properties({"title": outline.title, "author": "Penstock", "created": _MADE})
        self._bold, self._plain = self._book.add_format({"bold": True}), self._book.add_format()
        self._formats = [self._book.add_format({"num_format": _number_format(column)}) for column in outline.columns]
        self._rows_left = 0
        self._sheet = self._next_sheet()

    def add(self, rows: Sequence[Row]) -> None:
        """Write further *rows*."""
        for row in rows:
            if not self._rows_left:
                self._sheet = self._next_sheet()
            number = self._max_rows - self._rows_left + 1
            self._rows_left -= 1
            for at, value in enumerate(row):
                if value is not None:
                    self._write(number, at, value)

    def close(self) -> None:
        """Put the parts together."""
        try:
            self._book.close()
        except FileCreateError as error:  # xlsxwriter's own around the disk's
            raise (
                error.args[0] if error.args and isinstance(error.args[0], OSError) else OSError(str(error))
            ) from error

    def abandon(self) -> None:
        """Let go of its parts, which somebody else removes, as they are; after ``close`` there are none."""
        for sheet in self._book.worksheets():
            with suppress(OSError):
                sheet.row_data_fh.close()  # xlsxwriter has no other way to give up a workbook

    def _next_sheet(self) -> Worksheet:
        self.sheets += 1
        self._rows_left = self._max_rows
        sheet = self._book.add_worksheet("Table" if self.sheets == 1 else f"Table {self.sheets}")
        sheet.freeze_panes(1, 0)
        for at, column in enumerate(self._outline.columns):
            width = min(max(_WIDTHS.get(column.type, 14), len(column.heading) + 2), _WIDEST)
            sheet.set_column(at, at, width, self._formats[at])
            sheet.write_string(0, at, column.heading, self._bold)
        return sheet

    def _write(self, row: int, at: int, value: Value) -> None:
        match value:
            case str():
                self._write_text(row, at, value)
            case bool():
                self._sheet.write_boolean(row, at, value)
            case int() | float() | Decimal() if _fits(value):
                self._sheet.write_number(row, at, value)
            case datetime() if value.year >= _FIRST_YEAR:
                self._sheet.write_datetime(row, at, value.replace(tzinfo=None))  # Excel knows no zones
            case date() if value.year >= _FIRST_YEAR:
                self._sheet.write_datetime(row, at, value)
            case _:
                self._write_text(row, at, spelled(value))

    def _write_text(self, row: int, at: int, text: str) -> None:
        if len(text) > _LONGEST // 2:
            whole, text = text, _shortened(text)
            self.cut += text != whole
        if text.startswith("<r>") and text.endswith("</r>"):
            # xlsxwriter would take such a text for XML of its own, and write it as it is.
            self._sheet.write_rich_string(row, at, text[:1], self._plain, text[1:])
        else:
            self._sheet.write_string(row, at, text)


def _shortened(text: str) -> str:
    """As much of *text* as a cell takes. Here and not by xlsxwriter, which cuts after it was seen what the text ends
    with."""
    return text.encode("utf-16-le", "replace")[: 2 * _LONGEST].decode("utf-16-le", "ignore")


def _number_format(column: Column) -> str:
    if column.type is Type.DECIMAL and column.places is not None:
        return "#,##0" + ("." + "0" * column.places if column.places else "")
    return _FORMATS.get(column.type, "#,##0" if column.type is Type.INTEGER and column.total else "General")


def _fits(value: float | Decimal) -> bool:
    """Whether Excel has such numbers, with all of their digits."""
    if not -_LARGEST < value < _LARGEST:
        return False
    if isinstance(value, float):
        return True
    if isinstance(value, int):
        return abs(value) < 10**_DIGITS
    return len(value.as_tuple().digits) <= _DIGITS or len(value.normalize().as_tuple().digits) <= _DIGITS
