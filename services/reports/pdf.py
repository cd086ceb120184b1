"""Sales as a PDF: a heading, a bar chart of the best-selling items and a table of all."""

from __future__ import annotations

import io

from reportlab.graphics.charts.barcharts import HorizontalBarChart
from reportlab.graphics.shapes import Drawing
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from services.reports.sales import ItemSales, Sales

#: Bars in the chart.
BEST = 8

_WIDTH = A4[0] - 40 * mm
_BLUE = colors.HexColor("#2a5d84")
_LOOK = TableStyle(
    [
        ("FONT", (0, 0), (-1, 0), "Helvetica-Bold"),
        ("BACKGROUND", (0, 0), (-1, 0), _BLUE),
        ("TEXTCOLOR", (0, 0), (-1, 0), colors.white),
        ("ALIGN", (1, 0), (-1, -1), "RIGHT"),
        ("ROWBACKGROUNDS", (0, 1), (-1, -2), (colors.white, colors.HexColor("#eef3f7"))),
        ("FONT", (0, -1), (-1, -1), "Helvetica-Bold"),
        ("LINEABOVE", (0, -1), (-1, -1), 1, _BLUE),
    ]
)


def pdf_of(sales: Sales) -> bytes:
    """*sales* as a PDF. The same sales give the same bytes."""
    file = io.BytesIO()
    title = f"Sales: {sales.region}"
    document = SimpleDocTemplate(
        file, pagesize=A4, leftMargin=20 * mm, rightMargin=20 * mm, title=title, author="Penstock", invariant=1
    )
    document.build(_content(title, sales))
    return file.getvalue()


def _content(title: str, sales: Sales) -> list[Flowable]:
    styles, total = getSampleStyleSheet(), sales.total
    words = f"{total.orders} orders, {total.quantity} pieces, {total.revenue:,.2f} in all"
    return [
        Paragraph(title, styles["Title"]),  # a region has no markup in it: letters, digits and hyphens
        Paragraph(words, styles["Normal"]),
        Spacer(0, 8 * mm),
        *([_chart(sales.items[:BEST]), Spacer(0, 8 * mm)] if sales.items else []),
        _table(sales),
    ]


def _chart(best: tuple[ItemSales, ...]) -> Drawing:
    height = (12 + 7 * len(best)) * mm
    drawing, chart = Drawing(_WIDTH, height), HorizontalBarChart()
    chart.x, chart.y, chart.width, chart.height = (
        round(45 * mm),
        round(8 * mm),
        round(_WIDTH - 50 * mm),
        round(height - 10 * mm),
    )
    chart.data = [[float(one.revenue) for one in reversed(best)]]
    chart.categoryAxis.categoryNames = [_shown(one.item, 22) for one in reversed(best)]
    chart.valueAxis.valueMin = min(0.0, *chart.data[0])
    chart.bars[0].fillColor = _BLUE
    drawing.add(chart)
    return drawing


def _table(sales: Sales) -> Table:
    rows = [
        (_shown(one.item, 48), str(one.orders), str(one.quantity), f"{one.revenue:,.2f}")
        for one in (*sales.items, sales.total)
    ]
    widths = [0.49 * _WIDTH, 0.17 * _WIDTH, 0.17 * _WIDTH, 0.17 * _WIDTH]
    return Table([("Item", "Orders", "Quantity", "Revenue"), *rows], widths, repeatRows=1, style=_LOOK)


def _shown(text: str, length: int) -> str:
    """*text* as the standard fonts can show it: Latin letters, on one line, cut."""
    plain = text.encode("latin-1", "replace").decode("latin-1")
    line = "".join(character if character.isprintable() else " " for character in plain)
    return line if len(line) <= length else line[: length - 3] + "..."
