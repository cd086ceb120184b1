"""What infra/ and the docs say about alerts, read for tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any  # YAML

import yaml

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "infra" / "prometheus"
RUNBOOK = ROOT / "docs" / "runbook.md"


def rules() -> list[dict[str, Any]]:
    """Every rule, recording ones too."""
    return [rule for path in _yaml("rules") for group in read(path)["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def unit_tests() -> Iterator[tuple[str, bool]]:
    """What promtool is asked about each alert: its name, and whether it is to fire."""
    for path in _yaml("tests"):
        for test in read(path)["tests"]:
            for question in test["alert_rule_test"]:
                yield question["alertname"], bool(question["exp_alerts"])


def sections() -> dict[str, str]:
    """The runbook's sections by the anchor under which a browser finds them."""
    parts = re.split(r"^#{2,3} (.+)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-"): text for title, text in _pairs(parts[1:])}


def read(path: Path) -> Any:
    """The YAML in *path*."""
    return yaml.safe_load(path.read_text())


def _yaml(folder: str) -> list[Path]:
    return sorted((PROMETHEUS / folder).glob("*.yml"))


def _pairs(items: list[str]) -> Iterator[tuple[str, str]]:
    return zip(items[::2], items[1::2], strict=True)
