"""That Grafana can take the dashboards as they are, and people too: no part missing, nothing without a word on it."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import product
from typing import Any

import pytest
import yaml

from tests.support.queries import DASHBOARDS
from tests.support.rules import ROOT

BOARDS = {path.stem: json.loads(path.read_text()) for path in DASHBOARDS}
PROVISIONING = ROOT / "infra" / "grafana" / "provisioning"
PANELS = [(f"{name}: {panel['title']}", panel) for name, board in BOARDS.items() for panel in board["panels"]]


def test_there_are_four_and_each_leads_to_the_others() -> None:
    assert {board["uid"] for board in BOARDS.values()} == {f"penstock-{name}" for name in BOARDS}
    assert set(BOARDS) == {"overview", "kind", "broker", "schedules"}
    for board in BOARDS.values():
        assert board["refresh"] == "30s"
        assert board["tags"] == ["penstock"]
        assert [(link["type"], link["tags"]) for link in board["links"]] == [("dashboards", ["penstock"])]


def test_they_ask_the_data_source_that_is_provisioned() -> None:
    [source] = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yml").read_text())["datasources"]
    asked = {json.dumps(found) for board in BOARDS.values() for found in _sources(board)}
    assert asked == {json.dumps({"type": source["type"], "uid": source["uid"]})}


def test_compose_puts_them_where_the_provisioning_looks() -> None:
    [provider] = yaml.safe_load((PROVISIONING / "dashboards" / "penstock.yml").read_text())["providers"]
    grafana = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    places = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert places["./infra/grafana/dashboards"] == provider["options"]["path"]
    assert places["./infra/grafana/provisioning"] == "/etc/grafana/provisioning"


@pytest.mark.parametrize("name", BOARDS)
def test_no_panel_lies_on_another_and_none_shares_an_id(name: str) -> None:
    panels = BOARDS[name]["panels"]
    cells = Counter(cell for panel in panels for cell in _cells(panel["gridPos"]))
    assert [cell for cell, count in cells.items() if count > 1] == []
    assert max(column for column, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize(("title", "panel"), PANELS, ids=[title for title, _ in PANELS])
def test_a_panel_says_what_it_shows_and_in_what(title: str, panel: dict[str, Any]) -> None:
    assert panel["description"].endswith("."), title
    assert panel["fieldConfig"]["defaults"]["unit"] in {"short", "cps", "s", "bytes", "percentunit"}
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references) >= 1
    if panel["type"] == "timeseries":
        assert all(target["legendFormat"] for target in panel["targets"]), "a line has to have a name"


def test_variables_are_used_and_what_is_used_is_a_variable() -> None:
    for board in BOARDS.values():
        text = json.dumps(board["panels"])
        used = set(re.findall(r"\$(?!_)(\w+)", text))
        assert used == {variable["name"] for variable in board["templating"]["list"]}
        for variable in board["templating"]["list"]:
            assert variable["query"] == variable["definition"]
            assert variable["refresh"] == 2, "when the time range changes: kinds come and go"


def test_a_click_on_a_kind_or_a_queue_leads_to_what_shows_it_alone() -> None:
    found = [link for _, panel in PANELS for link in panel["fieldConfig"]["defaults"].get("links", ())]
    assert len(found) >= 8
    for link in found:
        [(uid, name, label)] = re.findall(r"^/d/penstock-(\w+)\?var-(\w+)=\$\{__field\.labels\.(\w+)\}&", link["url"])
        assert name == label
        assert name in {variable["name"] for variable in BOARDS[uid]["templating"]["list"]}


def _sources(part: object) -> list[object]:
    match part:
        case dict():
            own = [part["datasource"]] if "datasource" in part else []
            return own + [found for value in part.values() for found in _sources(value)]
        case list():
            return [found for value in part for found in _sources(value)]
        case _:
            return []


def _cells(place: dict[str, int]) -> list[tuple[int, int]]:
    columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
    return list(product(columns, rows))
