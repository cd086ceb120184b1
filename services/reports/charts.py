"""A report's chart, drawn for a PDF."""

from __future__ import annotations

from reportlab.graphics.charts.barcharts import HorizontalBarChart
from reportlab.graphics.charts.linecharts import HorizontalLineChart
from reportlab.graphics.shapes import Drawing
from reportlab.lib import colors
from reportlab.lib.units import mm

from penstock.printable import shortened
from services.reports.fonts import Lettering
from services.reports.outline import ChartKind
from services.reports.tally import Sums

BLUE = colors.HexColor("#2a5d84")

_LABEL = 26
_LINE_HEIGHT = 70 * mm

#: Beyond that nothing is drawn: floats end soon after.
_LARGEST = 10**300

#: Labels under a line; more would run into each other.
_TICKS = 8


def chart_of(sums: Sums, kind: ChartKind, width: float, letters: Lettering) -> Drawing:
    """*sums* as a chart *width* points wide. There has to be at least one."""
    labels = [shortened(letters.line(label), _LABEL) for label in sums.labels]
    values = [float(max(-_LARGEST, min(value, _LARGEST))) for value in sums.values]
    chart = _bars(labels, values) if kind is ChartKind.BAR else _line(labels, values)
    height = _LINE_HEIGHT if kind is ChartKind.LINE else (12 + 7 * len(labels)) * mm
    left = 45 * mm if kind is ChartKind.BAR else 25 * mm
    box = (left, 10 * mm, width - left - 10 * mm, height - 12 * mm)
    chart.x, chart.y, chart.width, chart.height = map(round, box)
    for axis in (chart.categoryAxis, chart.valueAxis):
        axis.labels.fontName, axis.labels.fontSize = letters.regular, 8
    chart.valueAxis.labelTextFormat = lambda value: f"{value:,.10g}"
    chart.valueAxis.valueMin = min(0.0, *values)
    if not any(values):
        chart.valueAxis.valueMax = 1.0
    drawing = Drawing(width, height)
    drawing.add(chart)
    return drawing


def _bars(labels: list[str], values: list[float]) -> HorizontalBarChart:
    """The first one on top."""
    chart = HorizontalBarChart()
    chart.data = [values[::-1]]
    chart.categoryAxis.categoryNames = labels[::-1]
    chart.categoryAxis.joinAxisMode = "left"  # the labels stay clear of bars below zero
    chart.bars[0].fillColor, chart.bars[0].strokeColor = BLUE, None
    return chart


def _line(labels: list[str], values: list[float]) -> HorizontalLineChart:
    chart = HorizontalLineChart()
    chart.data = [values]
    every = -(-len(labels) // _TICKS)
    chart.categoryAxis.categoryNames = [label if not at % every else "" for at, label in enumerate(labels)]
    chart.categoryAxis.joinAxisMode, chart.categoryAxis.visibleTicks = "bottom", 0
    chart.lines[0].strokeColor, chart.lines[0].strokeWidth = BLUE, 1.5
    return chart
