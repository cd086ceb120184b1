"""Limits by domain, as settings write them, and what mails to a domain are held to."""

from __future__ import annotations

import pytest

from penstock import ConfigError
from services.mailer.domains import domain_of
from services.mailer.limits import Limits, numbers, rates
from services.mailer.settings import Settings


def test_limits_are_read_by_domain_and_the_star_is_for_the_others() -> None:
    found = rates(" Example.org=10/s, slow.example=30/m,*=3600/h ,")
    assert [found.of(name) for name in ("example.org", "slow.example", "b.test")] == [10.0, 0.5, 1.0]
    assert numbers("a.test=2").of("b.test") is None
    assert not rates("")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("example.org", "is not of the form example.org=LIMIT"),
        ("example.org=0/s", "'0/s' is no rate such as 10/s, 30/m or 1000/h"),
        ("example.org=10", "'10' is no rate"),
        ("a b=1/s", "'a b=1/s' is not of the form"),
        ("*.org=1/s", "is not of the form"),
        ("a.test=1/s,A.TEST=2/s", "a.test has two limits"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused_in_one_line(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILER_THROTTLE", text)
    monkeypatch.setenv("MAILER_AT_ONCE", "a.test=many")
    with pytest.raises(ConfigError) as caught:
        Settings.read()
    first, second = caught.value.problems
    assert first.startswith("MAILER_THROTTLE: ")
    assert words in first
    assert second == "MAILER_AT_ONCE: 'many' is no number from 1 to 9999"


def test_without_settings_nothing_is_limited() -> None:
    settings = Settings.read()
    assert (settings.throttle, settings.at_once) == (Limits(), Limits())
    terms = settings.rules().terms_of("example.org")
    assert (terms.slots, terms.at_once, terms.rate) == (settings.slots, None, None)


def test_a_domain_is_held_to_its_limits_and_to_what_it_was_left_alone_for_before() -> None:
    settings = Settings(throttle="a.test=30/m", at_once="*=8", failures=7)  # type: ignore[arg-type]  # read from text
    terms = settings.rules().terms_of("a.test")
    assert (terms.rate, terms.at_once, terms.failures, terms.relapses) == (0.5, 8, 7, True)


def test_a_domain_is_the_same_in_upper_case_and_behind_the_last_at() -> None:
    assert domain_of('"a@b"@Example.ORG') == "example.org"
