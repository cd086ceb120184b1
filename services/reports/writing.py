"""A report's rows into its files, in one pass and in as much memory as a few of them take."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from services.reports.csv_file import CsvFile
from services.reports.files import Drafts
from services.reports.fonts import Lettering
from services.reports.outline import Outline, Row
from services.reports.pdf_file import write_pdf
from services.reports.tally import Tally
from services.reports.xlsx_file import MAX_ROWS, XlsxFile


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a report. *files*: their names. *left_out*: rows that the table of its PDF does not show.

    *sheets*: of its workbook. *cut*: texts that were too long for a cell of that. *replaced*: different characters
    that the font of the PDF does not have.
    """

    files: list[str]
    rows: int
    left_out: int = 0
    sheets: int = 0
    cut: int = 0
    replaced: int = 0


class Writing:
    """One report being written: a file ``STEM.FORMAT`` in each of *formats* among *drafts*.

    Rows may come in batches of any size; only the first few are kept. A context manager, at whose end no file is open.
    Raises ``OSError`` when the disk is full.
    """

    def __init__(
        self,
        outline: Outline,
        formats: Collection[str],
        drafts: Drafts,
        stem: str,
        letters: Lettering,
        sheet_rows: int = MAX_ROWS,
    ) -> None:
        self._outline = outline
        self._drafts = drafts
        self._letters = letters
        self._rows = 0
        self._csv = CsvFile(drafts.path(f"{stem}.csv"), outline) if "csv" in formats else None
        self._xlsx = None
        if "xlsx" in formats:
            self._xlsx = XlsxFile(drafts.path(f"{stem}.xlsx"), outline, drafts.scratch, sheet_rows)
        self._pdf = drafts.path(f"{stem}.pdf") if "pdf" in formats else None
        self._tally = None if self._pdf is None else Tally(outline)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the disk is full, which was told by what brings us here
            if self._csv is not None:
                self._csv.close()
        if self._xlsx is not None:
            self._xlsx.abandon()

    @property
    def rows(self) -> int:
        """How many there are so far."""
        return self._rows

    def add(self, rows: Sequence[Row]) -> None:
        """Write further *rows*. Raises ``TooManyLabels``."""
        self._rows += len(rows)
        for each in (self._csv, self._xlsx, self._tally):
            if each is not None:
                each.add(rows)

    def finish(self) -> Written:
        """Complete the files and put them into their places, once all of them are complete."""
        if self._csv is not None:
            self._csv.close()
        if self._xlsx is not None:
            self._xlsx.close()
        if self._pdf is not None and self._tally is not None:
            write_pdf(self._pdf, self._outline, self._tally, self._letters)
        return Written(
            files=self._drafts.publish(),
            rows=self._rows,
            left_out=self._rows - len(self._tally.first) if self._tally else 0,
            sheets=self._xlsx.sheets if self._xlsx else 0,
            cut=self._xlsx.cut if self._xlsx else 0,
            replaced=len(self._letters.replaced),
        )
