"""What the doctor knows of versions, and how its exit code comes about."""

from __future__ import annotations

import pytest

from penstock.doctor.findings import exit_code, unseen, well, wrong
from penstock.doctor.versions import judge


@pytest.mark.parametrize("version", ["3.13.7", "4.0.9", "4.1.8", "4.2.9", "4.3.6", "4.3.10", "4.4.0", "5.0.0", "next"])
def test_a_version_fit_for_production(version: str) -> None:
    assert (judge(version).usable, judge(version).lacks) == (True, None)


@pytest.mark.parametrize("version", ["3.10.8", "3.12.14", "3.13.2", "4.0.5", "4.1.0", "4.2.8", "4.3.5", "4.3.0-rc.1"])
def test_a_version_for_development_only_says_why(version: str) -> None:
    assert judge(version).usable
    assert judge(version).lacks


def test_a_version_that_cannot_carry_penstock() -> None:
    assert not judge("3.9.29").usable


def test_what_kept_the_doctor_from_looking_names_the_exit_code() -> None:
    assert exit_code([well("a", "."), unseen("b", ".")]) == 0
    assert exit_code([well("a", "."), wrong("b", ".", ".")]) == 6
    assert exit_code([wrong("a", ".", "."), wrong("b", ".", ".", 4), wrong("c", ".", ".", 3)]) == 4
