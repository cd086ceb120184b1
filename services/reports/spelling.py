"""Values as text: for machines, with every digit, and for people."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from services.reports.outline import Value


def spelled(value: Value) -> str:
    """*value* as programs read it: ISO 8601, a point before decimals, nothing for None."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case Decimal():
            return format(value, "f")
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case int() | float():
            return str(value)
    return value.isoformat()


def shown(value: Value) -> str:
    """*value* as people read it: thousands apart, instants to the second."""
    match value:
        case bool():
            return "yes" if value else "no"
        case Decimal():
            return format(value, ",f")
        case datetime():
            return f"{value:%Y-%m-%d %H:%M:%S}"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.15g}"
    return spelled(value)
