"""The PromQL in rules, dashboards and the runbook, and the names of metrics in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from tests.support.rules import ROOT, RUNBOOK, rules

DASHBOARDS = sorted((ROOT / "infra" / "grafana" / "dashboards").glob("*.json"))

#: What Prometheus itself makes; the rest a process has to show.
OWN = {"ALERTS", "up"}

_NAME = re.compile(r"\b(?:penstock_\w+|rabbitmq_\w+|queue:\w+:\w+|ALERTS|up)\b(?!\s*=~?\")")
_BY_PATTERN = re.compile(r'__name__=~"([^"]+)"')
_LABELS = re.compile(r"\{[^{}]*\}|\b(?:by|on|without) \([^)]*\)|group_left|\"[^\"]*\"")
_SUFFIX = re.compile(r"_(bucket|count|sum)$")


def queries() -> Iterator[tuple[str, str]]:
    """Every query with where it stands."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for path in DASHBOARDS:
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel["targets"]:
                yield f"{path.name}: {panel['title']}", target["expr"]
        for variable in board["templating"]["list"]:
            yield f"{path.name}: ${variable['name']}", variable["query"]
    for found in re.findall(r"`([^`]*(?:penstock_|rabbitmq_)\w+[^`]*)`", RUNBOOK.read_text().replace("\n", " ")):
        yield f"runbook: {found}", found


def names(query: str) -> set[str]:
    """The metrics that *query* asks for; the parts of a histogram under its name."""
    found = set(_NAME.findall(_LABELS.sub("", query)))
    return {_SUFFIX.sub("", name) if name.startswith("penstock_") else name for name in found} - OWN


def patterns(query: str) -> set[str]:
    """The patterns of names that *query* asks for."""
    return set(_BY_PATTERN.findall(query))
