"""What ``penstock schedule`` answers without a broker: what it is asked for is not there, or cannot be meant."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from penstock.cli.main import run

FILE = """
schedules:
  hourly: {every: 1h, kind: email.tick}
  alone: {every: 1h, kind: email.tick, overlap: skip}
  xmas: {at: 2996-12-24T18:00:00+01:00, zone: Europe/Berlin, kind: email.tick}
"""
NOON, ONE = "2026-01-01T12:00:00Z", "2026-01-01T13:00:00Z"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of schedules, and no broker."""
    monkeypatch.delenv("RABBITMQ_URL", raising=False)
    path = tmp_path / "schedules.yaml"
    path.write_text(FILE)
    return str(path)


@pytest.mark.parametrize(
    "words", [("next",), ("pause",), ("run",), ("list",), ("backfill", "--from", NOON, "--to", ONE, "--yes")]
)
def test_a_name_that_is_not_there_is_answered_with_the_one_that_is_near(
    file: str, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["schedule", words[0], "houry", "--file", file, *words[1:]]) == 2
    assert capsys.readouterr().err == f"penstock: {file} has no schedule 'houry'; did you mean hourly?\n"


@pytest.mark.parametrize(
    ("name", "since", "until", "told"),
    [
        ("alone", NOON, ONE, "alone has overlap: skip, by which most of these ticks would be skipped; say --overlap"),
        ("hourly", ONE, NOON, "--from is after --to"),
        ("hourly", NOON, "2999-01-01T00:00:00Z", "--to is still to come"),
        ("hourly", "2020-01-01T00:00:00Z", NOON, "there are more than 10000 ticks in that time: backfill it in parts"),
        ("hourly", "2026-01-01", NOON, "has no zone"),
    ],
)
def test_a_time_that_cannot_be_made_up_for_is_refused(
    file: str, name: str, since: str, until: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["schedule", "backfill", name, "--file", file, "--from", since, "--to", until, "--yes"]) == 2
    assert told in capsys.readouterr().err


def test_the_next_runs_of_a_schedule_are_shown_in_its_zone_and_utc(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["schedule", "next", "xmas", "--file", file, "--count", "20"]) == 0
    shown = capsys.readouterr().out
    assert shown.split() == ["2996-12-24", "18:00:00+01:00", "Europe/Berlin", "2996-12-24T17:00:00Z"]
    assert run(["schedule", "next", "xmas", "--file", file, "--json"]) == 0
    assert orjson.loads(capsys.readouterr().out) == {
        "schedule": "xmas",
        "zone": "Europe/Berlin",
        "next": [{"local": "2996-12-24T18:00:00+01:00", "utc": "2996-12-24T17:00:00Z"}],
    }
    assert run(["schedule", "next", "hourly", "--file", file, "--count", "20"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 20


def test_a_file_that_is_wrong_is_told_to_machines_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "schedules.yaml"
    path.write_text("schedules:\n  a: {every: never, kind: email.tick}\n  b: {kind: email.tick}\n")
    assert run(["schedule", "check", str(path), "--json"]) == 5
    out, err = capsys.readouterr()
    problems = orjson.loads(out)["problems"]
    assert [f"penstock: {each}" for each in problems] == err.splitlines()
    assert [each.split(": ")[:2] for each in problems] == [
        [f"{path}:2", "schedules.a.every"],
        [f"{path}:3", "schedules.b"],
    ]
    assert run(["schedule", "check", str(tmp_path / "none.yaml")]) == 5
