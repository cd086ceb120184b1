"""The alerts that come with the project: valid, tested one by one, and each with a way to mend what it tells."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.rules import PROMETHEUS, ROOT, alerts, sections, unit_tests

pytestmark = pytest.mark.timeout(120)

ANSWERS = ("**Means.**", "**Look.**", "**Mend.**", "**Mended when**")


def told(*command: str | Path, good: bool = True) -> str:
    """Run *command*, which must be content or not, and return what it says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert (done.returncode == 0) is good, said
    return said


def test_prometheus_and_alertmanager_take_the_files() -> None:
    told("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    told("amtool", "check-config", ROOT / "infra" / "alertmanager" / "alertmanager.yml")


@pytest.mark.parametrize("name", ["broker", "jobs", "publishing", "queues", "schedules"])
def test_the_rules_do_what_their_unit_tests_say(name: str) -> None:
    told("promtool", "test", "rules", PROMETHEUS / "tests" / f"{name}.yml")


def test_a_rule_that_was_changed_fails_its_unit_tests(tmp_path: Path) -> None:
    copy = shutil.copytree(PROMETHEUS, tmp_path / "copy")
    rules = copy / "rules" / "broker.yml"
    rules.write_text(rules.read_text().replace("== 0", "== 1"))
    assert "FAILED" in told("promtool", "test", "rules", copy / "tests" / "broker.yml", good=False)


def test_every_file_of_rules_has_its_unit_tests() -> None:
    rules, tests = ({path.name for path in (PROMETHEUS / folder).iterdir()} for folder in ("rules", "tests"))
    assert rules == tests


def test_every_alert_is_tested_firing_and_silent() -> None:
    asked = set(unit_tests())
    assert {name for name, fires in asked if fires} == set(alerts())
    assert {name for name, fires in asked if not fires} == set(alerts())


def test_every_alert_says_how_bad_it_is_and_in_words_what_is_wrong() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert set(rule["annotations"]) == {"summary", "runbook_url"}, name
        assert "{{" in rule["annotations"]["summary"] or "sum(" in rule["expr"], f"{name} names no number and no place"


def test_every_alert_has_a_section_in_the_runbook_and_none_is_left_over() -> None:
    found = sections()
    for name, rule in alerts().items():
        path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert (path, anchor) == ("docs/runbook.md", name.lower())
        missing = [answer for answer in ANSWERS if answer not in found.get(anchor, "")]
        assert not missing, f"{name} has no {', '.join(missing)} in {path}"
    assert {anchor for anchor in found if anchor.startswith("penstock")} == {name.lower() for name in alerts()}


def test_the_runbook_links_only_to_what_there_is() -> None:
    found = sections()
    for text in found.values():
        for anchor in re.findall(r"\]\(#([^)]+)\)", text):
            assert anchor in found
        for path in re.findall(r"\]\(([a-z-]+\.md)", text):
            assert (ROOT / "docs" / path).exists()
