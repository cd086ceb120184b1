"""An error as text: whatever the exception does, its story is short, readable and fit for a header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.outcome import MAX_ERROR_TEXT, MAX_TRACEBACK, Failure


class Nested:
    """A place for an exception whose name has a dot."""

    class Refused(Exception):
        """Refused."""


class Mute(Exception):
    """Cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Liar(Exception):
    """Says that it is no text."""

    def __str__(self) -> str:
        return 42  # type: ignore[return-value]  # what a careless class does


def raised(error: BaseException) -> Failure:
    """The failure of *error* after it was raised and caught."""
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - also what is no Exception has a story
        return Failure.of(caught)


def test_a_failure_names_type_text_and_the_line_that_raised() -> None:
    failure = raised(ValueError("no such order"))
    assert (failure.type, failure.text) == ("ValueError", "no such order")
    assert "raise error" in failure.traceback
    assert failure.traceback.endswith("ValueError: no such order\n")


def test_a_type_of_another_module_is_named_in_full() -> None:
    assert raised(Nested.Refused()).type == f"{__name__}.Nested.Refused"


@pytest.mark.parametrize("error", [Mute("x"), Liar("x")])
def test_an_exception_that_cannot_be_read_is_told_by_its_type(error: Exception) -> None:
    failure = raised(error)
    assert type(error).__name__ in failure.text
    assert "cannot be read" in failure.text
    assert failure.traceback


def test_ten_mebibytes_of_text_are_cut_to_what_a_header_carries() -> None:
    failure = raised(ValueError("x" * 10 * 1024 * 1024))
    assert len(failure.text) == MAX_ERROR_TEXT
    assert len(failure.traceback) <= MAX_TRACEBACK


def test_a_deep_traceback_keeps_its_end() -> None:
    def fall(depth: int) -> None:
        if depth == 0:
            raise ValueError("the bottom")
        fall(depth - 1)

    with pytest.raises(ValueError, match="the bottom") as caught:
        fall(500)
    failure = Failure.of(caught.value)
    assert failure.traceback.endswith("ValueError: the bottom\n")
    assert len(failure.traceback.encode()) <= MAX_TRACEBACK


def test_an_endless_chain_of_causes_is_cut() -> None:
    error = ValueError("first")
    for number in range(300):
        later = ValueError(f"after {number}")
        later.__cause__ = error
        error = later
    failure = raised(error)
    assert len(failure.traceback.encode()) <= MAX_TRACEBACK
    assert failure.traceback.endswith("after 299\n")


@given(st.text(st.characters(codec=None), max_size=5000))
def test_any_text_becomes_valid_utf_8_within_its_limit(text: str) -> None:
    failure = raised(ValueError(text))
    assert len(failure.text.encode("utf-8")) <= MAX_ERROR_TEXT
    assert len(failure.traceback.encode("utf-8")) <= MAX_TRACEBACK


def test_a_lone_surrogate_loses_only_itself() -> None:
    assert raised(ValueError("caf\udce9 closed")).text == "caf? closed"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), BaseExceptionGroup("many", [SystemExit(1)])])
def test_what_is_no_exception_has_a_story_too(error: BaseException) -> None:
    assert raised(error).type == type(error).__name__
