"""How the command line reads durations and instants, and what it says when it cannot."""

from __future__ import annotations

from datetime import datetime, timedelta

import typer

from penstock.durations import EXPECTED, duration


def span(text: str) -> timedelta:
    """A duration such as ``90``, ``5m`` or ``1h30m``."""
    try:
        return duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def instant(text: str) -> datetime:
    """An instant in ISO 8601 with its zone."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an instant such as 2030-01-31T08:00:00+01:00") from None
    if when.utcoffset() is None:
        raise typer.BadParameter(f"{text!r} has no zone: add Z or an offset such as +01:00")
    return when


def span_or_instant(text: str) -> timedelta | datetime:
    """A duration from now, or an instant."""
    try:
        return duration(text)
    except ValueError:
        pass
    try:
        return instant(text)
    except typer.BadParameter as error:
        raise typer.BadParameter(f"{error.message}; or {EXPECTED}") from None
