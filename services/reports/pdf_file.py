"""A report as a PDF: what it is, its chart, the first rows of its table, and what is not shown."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer

from services.reports.charts import chart_of
from services.reports.fonts import Lettering
from services.reports.outline import Outline
from services.reports.pdf_table import Cells, table_of
from services.reports.spelling import shown
from services.reports.tally import Sums, Tally

_MARGIN = 18 * mm

#: What is beside the text: the margins, and the padding of reportlab's frame.
_BESIDE = 2 * _MARGIN + 12


def write_pdf(path: Path, outline: Outline, tally: Tally, letters: Lettering) -> None:
    """Write what *tally* has kept of a report's rows. The same rows and letters give the same bytes."""
    cells = Cells.of(outline.columns, tally.first, tally.totals(), letters)
    size = A4 if cells.width <= A4[0] - _BESIDE else landscape(A4)
    content = _content(outline, tally, cells, size[0] - _BESIDE, letters)
    footer = _Footer(letters)
    with path.open("wb") as file:  # reportlab would not close one of its own when the disk is full
        document = SimpleDocTemplate(
            file,
            pagesize=size,
            leftMargin=_MARGIN,
            rightMargin=_MARGIN,
            topMargin=_MARGIN,
            bottomMargin=_MARGIN,
            title=outline.title,
            author="Penstock",
            invariant=1,
        )
        document.build(content, onFirstPage=footer, onLaterPages=footer)


def _content(outline: Outline, tally: Tally, cells: Cells, width: float, letters: Lettering) -> list[Flowable]:
    title = ParagraphStyle("title", fontName=letters.bold, fontSize=16, leading=20, spaceAfter=3 * mm)
    plain = ParagraphStyle("plain", fontName=letters.regular, fontSize=9, leading=12)

    def words(text: str) -> Paragraph:
        return Paragraph(escape(letters.line(text)), plain)

    content: list[Flowable] = [Paragraph(escape(letters.line(outline.title)), title)]
    content += [words(line) for line in (outline.note, _in_all(outline, tally)) if line]
    sums = tally.sums()
    if outline.chart is not None and sums is not None:
        chart = chart_of(sums, outline.chart.kind, width, letters)
        content += [Spacer(0, 6 * mm), words(_caption(outline, sums)), chart]
    content.append(Spacer(0, 6 * mm))
    no_room = 0
    if tally.first:
        table, no_room = table_of(cells, width, letters)
        content.append(table)
    remarks = _remarks(outline, tally, no_room, letters)
    return [*content, Spacer(0, 4 * mm), *map(words, remarks)]


def _in_all(outline: Outline, tally: Tally) -> str:
    found = ["1 row" if tally.rows == 1 else f"{tally.rows:,} rows"]
    totals = tally.totals()
    if totals is None:
        return found[0]
    found += [
        f"{c.heading} {shown(value)}" for c, value in zip(outline.columns, totals, strict=True) if value is not None
    ]
    return f"{', '.join(found)} in all"


def _caption(outline: Outline, sums: Sums) -> str:
    chart = outline.chart
    assert chart is not None, "there are no sums without a chart"
    value = "Rows" if chart.value is None else outline.columns[outline.place(chart.value)].heading
    words = f"{value} by {chart.by or outline.columns[outline.place(chart.label)].heading}"
    if not sums.others:
        return words
    return f"{words}: the {len(sums.labels)} largest; the {sums.others:,} others come to {shown(sums.rest)}"


def _remarks(outline: Outline, tally: Tally, no_room: int, letters: Lettering) -> list[str]:
    """What a reader would miss."""
    found = []
    if tally.rows > len(tally.first):
        left_out = tally.rows - len(tally.first)
        found.append(f"{left_out:,} of {tally.rows:,} rows are left out here; a CSV or XLSX file has them all.")
    if no_room:
        names = ", ".join(column.heading for column in outline.columns[-no_room:])
        found.append(f"No room on the page for {names}.")
    if letters.replaced:
        found.append(f"{len(letters.replaced)} different characters, which the font does not have, are shown as ?.")
    return found


class _Footer:
    """The number of the page, at its foot."""

    def __init__(self, letters: Lettering) -> None:
        self._letters = letters

    def __call__(self, canvas: Canvas, document: SimpleDocTemplate) -> None:
        canvas.setFont(self._letters.regular, 8)
        canvas.drawRightString(document.pagesize[0] - _MARGIN, 10 * mm, str(document.page))
