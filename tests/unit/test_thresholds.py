"""That ``penstock status`` and the rules of Prometheus mean the same: every figure is in the rule of its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from penstock import thresholds
from penstock.durations import duration
from penstock.thresholds import Rule

RULES = [value for value in vars(thresholds).values() if isinstance(value, Rule)]
FOLDER = Path(__file__).parents[2] / "infra" / "prometheus" / "rules"


def alerts() -> Mapping[str, Any]:
    """The shipped alerts by name."""
    groups = [group for file in sorted(FOLDER.glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.alert)
def test_a_figure_is_that_of_the_rule(rule: Rule) -> None:
    shipped = alerts()[rule.alert]
    assert duration(shipped.get("for", "0s")) == rule.lasting
    if rule.over is not None:
        assert f"{rule.over.total_seconds() / 60:.0f}m" in re.findall(r"(?:\[|offset )(\d+m)", shipped["expr"])
    if rule.value:
        assert f"{'>=' if rule.least else '>'} {rule.value:g}" in shipped["expr"]


def test_the_least_sample_is_that_of_the_rules() -> None:
    for rule in (thresholds.ATTEMPT_FAILURES, thresholds.JOB_FAILURES):
        assert f">= {thresholds.LEAST_SAMPLE}" in alerts()[rule.alert]["expr"]
