"""Sales of a region added up, from the orders' CSV: values only, no files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from services.reports.outline import Chart, Column, Outline, Row, Type

#: The columns a source must have.
COLUMNS = ("item", "quantity", "amount")

#: Different items in one report; a source with more is no sales list.
MAX_ITEMS = 10_000

#: Bars in the chart.
BEST = 8

#: No single order has such a quantity or amount.
LIMIT = 10**12

_COLUMNS = (
    Column("item"),
    Column("orders", Type.INTEGER, total=True),
    Column("quantity", Type.INTEGER, total=True),
    Column("revenue", Type.DECIMAL, places=2, total=True),
)


class BadSource(Exception):
    """The orders cannot be read as what they should be; the text names the line."""


@dataclass(frozen=True, slots=True)
class ItemSales:
    """What was sold of one item."""

    item: str
    orders: int = 0
    quantity: int = 0
    revenue: Decimal = Decimal(0)

    def __add__(self, other: ItemSales) -> ItemSales:
        return ItemSales(
            self.item, self.orders + other.orders, self.quantity + other.quantity, self.revenue + other.revenue
        )


@dataclass(frozen=True, slots=True)
class Sales:
    """What was sold in one region, the best-selling item first."""

    region: str
    items: tuple[ItemSales, ...]

    @property
    def outline(self) -> Outline:
        """What the report on them looks like."""
        return Outline(f"Sales: {self.region}", _COLUMNS, Chart("item", "revenue", top=BEST), pdf_rows=MAX_ITEMS)

    @property
    def rows(self) -> list[Row]:
        """A row for each item."""
        return [(each.item, each.orders, each.quantity, each.revenue) for each in self.items]


def add_up(region: str, lines: Iterable[str]) -> Sales:
    """Add up the orders in *lines*, a CSV with a header. Raises ``BadSource``."""
    found: dict[str, ItemSales] = {}
    rows = csv.DictReader(lines, strict=True)
    try:
        missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise BadSource(f"line 1: no column {', '.join(missing)}")
        for row in rows:
            sale = _sale(row, rows.line_num)
            found[sale.item] = found.get(sale.item, ItemSales(sale.item)) + sale
            if len(found) > MAX_ITEMS:
                raise BadSource(f"line {rows.line_num}: more than {MAX_ITEMS} different items")
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadSource(f"after line {rows.line_num}: not CSV in UTF-8: {error}") from error
    return Sales(region, tuple(sorted(found.values(), key=lambda sales: (-sales.revenue, sales.item))))


def _sale(row: Mapping[str, str | None], line: int) -> ItemSales:
    try:
        item, quantity, amount = (row[column] or "" for column in COLUMNS)
        sale = ItemSales(item, 1, int(quantity), Decimal(amount))
    except (ValueError, InvalidOperation) as error:
        raise BadSource(f"line {line}: quantity or amount is not a number") from error
    if not item or not abs(sale.quantity) < LIMIT or not sale.revenue.is_finite() or not abs(sale.revenue) < LIMIT:
        raise BadSource(f"line {line}: no item, or a quantity or amount that cannot be meant")
    return sale
