"""Rows as CSV in UTF-8, as RFC 4180 has it, with no cell that a spreadsheet takes for a formula."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path

from services.reports.outline import Outline, Row, Type, Value
from services.reports.spelling import spelled

#: https://owasp.org/www-community/attacks/CSV_Injection, the wide forms that Japanese spreadsheets take included.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class CsvFile:
    """Writes rows to the file at *path* as they come. Raises ``OSError`` when the disk is full."""

    def __init__(self, path: Path, outline: Outline) -> None:
        self._file = path.open("w", encoding="utf-8", errors="replace", newline="")
        self._cells = [_CELLS.get(column.type, spelled) for column in outline.columns]
        self._rows = csv.writer(self._file)
        self._rows.writerow([_text(column.name) for column in outline.columns])

    def add(self, rows: Sequence[Row]) -> None:
        """Write further *rows*."""
        cells = self._cells
        self._rows.writerows(
            ["" if value is None else cell(value) for cell, value in zip(cells, row, strict=True)] for row in rows
        )

    def close(self) -> None:
        """Write what is left and close the file. Idempotent."""
        self._file.close()


def _text(value: Value) -> str:
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


#: Numbers begin with a minus at most, and are no formulas.
_CELLS: dict[Type, Callable[[Value], str]] = {Type.TEXT: _text, Type.INTEGER: str, Type.NUMBER: str}
