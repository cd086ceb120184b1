"""What is shown of text from outside."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.printable import printable, printable_lines, shortened


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_a_terminal_obeys_is_left_whatever_the_text(text: str) -> None:
    assert printable(text).isprintable()
    assert isinstance(printable(text).encode(), bytes)
    assert all(line.isprintable() for line in printable_lines(text).split("\n"))


def test_escapes_say_what_was_there() -> None:
    assert printable("a\x1b[31m\nb\u202e\ud800é…") == "a\\x1b[31m\\nb\\u202e\\ud800é…"


def test_lines_stay_lines_where_that_is_wanted() -> None:
    assert printable_lines("a\n\tb\x07") == "a\n    b\\x07"


def test_a_cut_text_says_so() -> None:
    assert shortened("abcdef", 4) == "abc…"
    assert shortened("abcd", 4) == "abcd"
