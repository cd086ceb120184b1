"""The table of a PDF: every number whole, texts cut where the page ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reportlab.lib import colors
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.platypus import LongTable, TableStyle

from services.reports.charts import BLUE
from services.reports.fonts import Lettering
from services.reports.outline import NUMERIC, Column, Row, Type, Value
from services.reports.spelling import shown, spelled

_SIZE = 8
_PADDING = 8
_ROW = 13

#: The least a column of texts gets (points).
_NARROW = 60
_ELLIPSIS = "…"
_ROUNDING = 0.01

_PALE = colors.HexColor("#eef3f7")


@dataclass(frozen=True, slots=True)
class Cells:
    """The texts of a table by row: headings, rows and, with *totals*, a last one of totals.

    *widths*: what each column takes when nothing is cut (points). *least*: what it cannot do without: a number that is
    cut would be another number.
    """

    columns: tuple[Column, ...]
    rows: list[list[str]]
    widths: list[float]
    least: list[float]
    totals: bool

    @classmethod
    def of(cls, columns: tuple[Column, ...], rows: Sequence[Row], totals: Row | None, letters: Lettering) -> Cells:
        """The cells of *rows*, in the characters that there are."""
        lines = [[letters.line(column.heading) for column in columns]]
        lines += [[_cell(*pair, letters) for pair in zip(columns, row, strict=True)] for row in rows]
        if totals is not None:
            last = [_cell(*pair, letters) for pair in zip(columns, totals, strict=True)]
            lines.append([last[0] or "Total", *last[1:]])
        fonts = _fonts(len(lines), totals is not None, letters)
        measured = [
            [stringWidth(line[at], font, _SIZE) + _PADDING for line, font in zip(lines, fonts, strict=True)]
            for at in range(len(columns))
        ]
        widths = [max(column) for column in measured]
        inside = [max(column[1:], default=0.0) for column in measured]
        least = [
            min(wide, _NARROW) if column.type is Type.TEXT else max(body, min(wide, _NARROW))
            for column, wide, body in zip(columns, widths, inside, strict=True)
        ]
        return cls(columns, lines, widths, least, totals is not None)

    @property
    def width(self) -> float:
        """What they take together when nothing is cut (points)."""
        return sum(self.widths)


def table_of(cells: Cells, width: float, letters: Lettering) -> tuple[LongTable, int]:
    """A table at most *width* points wide, and how many of the last columns have no room in it."""
    room = len(cells.least)
    while room > 1 and sum(cells.least[:room]) > width:
        room -= 1
    widths = _shared_out(cells.least[:room], cells.widths[:room], width)
    fonts = _fonts(len(cells.rows), cells.totals, letters)
    lines = [
        [_cut(text, wide - _PADDING, font) for text, wide in zip(line[:room], widths, strict=True)]
        for line, font in zip(cells.rows, fonts, strict=True)
    ]
    heights = [_ROW] * len(lines)
    table = LongTable(lines, widths, heights, repeatRows=1, style=_look(cells, letters), hAlign="LEFT")
    return table, len(cells.least) - room


def _fonts(lines: int, totals: bool, letters: Lettering) -> list[str]:
    """The font of each line: headings and totals are bold."""
    return [letters.bold if at == 0 or (totals and at == lines - 1) else letters.regular for at in range(lines)]


def _cell(column: Column, value: Value, letters: Lettering) -> str:
    if value is None:
        return ""
    # Whole numbers that nobody adds up are mostly somebody's number.
    plain = column.type is Type.INTEGER and not column.total
    return letters.line(spelled(value) if plain else shown(value))


def _shared_out(least: list[float], natural: list[float], width: float) -> list[float]:
    """Give each column its *least*, and what is left of *width* to those that want more, in the measure of that."""
    wanted = [more - less for less, more in zip(least, natural, strict=True)]
    left = max(width - sum(least), 0)
    share = min(left / sum(wanted), 1) if sum(wanted) else 0
    return [less + share * want for less, want in zip(least, wanted, strict=True)]


def _cut(text: str, width: float, font: str) -> str:
    if stringWidth(text, font, _SIZE) <= width + _ROUNDING:
        return text
    end = stringWidth(_ELLIPSIS, font, _SIZE)
    while text and stringWidth(text, font, _SIZE) + end > width:
        text = text[: min(len(text) - 1, int(len(text) * width / stringWidth(text, font, _SIZE)))]
    return text + _ELLIPSIS


def _look(cells: Cells, letters: Lettering) -> TableStyle:
    rows, last = len(cells.rows), -2 if cells.totals else -1
    look = TableStyle(
        [
            ("FONT", (0, 0), (-1, -1), letters.regular, _SIZE),
            ("FONT", (0, 0), (-1, 0), letters.bold, _SIZE),
            ("BACKGROUND", (0, 0), (-1, 0), BLUE),
            ("TEXTCOLOR", (0, 0), (-1, 0), colors.white),
            ("VALIGN", (0, 0), (-1, -1), "MIDDLE"),
            ("LEFTPADDING", (0, 0), (-1, -1), _PADDING / 2),
            ("RIGHTPADDING", (0, 0), (-1, -1), _PADDING / 2),
        ]
    )
    for at in [at for at, column in enumerate(cells.columns) if column.type in NUMERIC]:
        look.add("ALIGN", (at, 0), (at, -1), "RIGHT")
    if rows > -last:  # there is a row between headings and totals
        look.add("ROWBACKGROUNDS", (0, 1), (-1, last), (colors.white, _PALE))
    if cells.totals:
        look.add("FONT", (0, -1), (-1, -1), letters.bold, _SIZE)
        look.add("LINEABOVE", (0, -1), (-1, -1), 1, BLUE)
    return look
