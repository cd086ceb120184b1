"""What the doctor knows of versions, and how its exit code comes about."""

from __future__ import annotations

import pytest

from penstock.doctor.broker import of_nodes
from penstock.doctor.findings import State, exit_code, unseen, well, wrong
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


def test_a_node_that_was_just_started_is_not_said_to_lack_plugins_or_to_have_no_alarm() -> None:
    found = of_nodes([{"name": "rabbit@one", "running": True}])
    assert [(finding.check, finding.state) for finding in found] == [
        ("plugins", State.UNSEEN),
        ("alarms", State.UNSEEN),
    ]
    assert "just started" in found[0].words


def test_what_is_wrong_on_one_node_of_several_is_told_with_its_name() -> None:
    well_off = {"enabled_plugins": ["rabbitmq_prometheus", "rabbitmq_shovel", "rabbitmq_shovel_management"]}
    one = {"name": "rabbit@one", "running": True, **well_off}
    two = {"name": "rabbit@two", "running": True, "enabled_plugins": [], "disk_free_alarm": True}
    plugins, alarms = of_nodes([one, two, {"name": "rabbit@three", "running": False}])
    assert (plugins.state, alarms.state) == (State.WRONG, State.WRONG)
    assert "off on rabbit@two: rabbitmq_prometheus" in plugins.words
    assert "disk alarm on rabbit@two" in alarms.words
    assert "rabbit@three is down" in alarms.words
    assert {finding.state for finding in of_nodes([one])} == {State.OK}
