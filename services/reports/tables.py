"""Sales as CSV for spreadsheets."""

from __future__ import annotations

import csv
import io

from services.reports.sales import ItemSales, Sales


def csv_of(sales: Sales) -> bytes:
    """*sales* as CSV in UTF-8. No cell can start a formula when a spreadsheet opens it."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("item", "orders", "quantity", "revenue"))
    rows.writerows(_cells(one) for one in (*sales.items, sales.total))
    return text.getvalue().encode()


def _cells(one: ItemSales) -> tuple[str, int, int, str]:
    # https://owasp.org/www-community/attacks/CSV_Injection
    item = f"'{one.item}" if one.item.startswith(("=", "+", "-", "@", "\t", "\r")) else one.item
    return item, one.orders, one.quantity, f"{one.revenue:.2f}"
