"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from penstock.durations import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0", 0), ("1.5", 1.5), ("250ms", 0.25), ("90s", 90), ("5m", 300), (" 2H ", 7200), ("1h30m", 5400)],
)
def test_a_bare_number_is_seconds_and_units_add_up(text: str, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "-1", "5 m", "m", "5x", "1h-2m", "٣s", "nan", "1e3", "1,5"])
def test_anything_else_is_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration: expected"):
        duration(text)


def test_a_duration_beyond_all_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than any duration"):
        duration("999999999999w")
