"""The janitor's rules and folders, and that our schedules ask for what there is."""

from __future__ import annotations

import os
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from penstock import ConfigError, SchemaError
from penstock.schedules.model import utc_text
from penstock.schedules.reading import read_schedules
from penstock.schedules.rendering import render
from penstock_jobs import KINDS, PURGE_EXPIRED, DailyDigest, PurgeExpired, SyncPull
from services.janitor.app import build
from services.janitor.folders import Folder
from services.janitor.ports import Expiring, Problem
from services.janitor.rules import FolderRule, TableRule, Unit, parse_rules, read_rules
from services.janitor.settings import RULES
from services.janitor.sweeping import Terms, sweep

REPO = Path(__file__).parents[2]
NOW = datetime.now(UTC)
KEEP = timedelta(days=30)


def test_rules_say_what_expires_when(tmp_path: Path) -> None:
    found = parse_rules(
        f"""
        tables:
          shop.orders: {{column: closed_at, keep: 90d}}
          events: {{column: at_ms, keep: 1w, unit: milliseconds}}
        folders:
          reports: {{path: "{tmp_path}/out", files: ["*.pdf"], keep: 30d}}
        """
    )
    assert found.tables == (
        TableRule("shop.orders", "closed_at", timedelta(days=90)),
        TableRule("events", "at_ms", timedelta(days=7), Unit.MILLISECONDS),
    )
    assert found.folders == (FolderRule("reports", tmp_path / "out", ("*.pdf",), KEEP),)
    assert found.names == ("shop.orders", "events", "reports", "marks")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tables: {orders: {column: at}}", "1: table orders: keep must be a time from 1d to 36500d, such as 30d"),
        ("tables: {orders: {column: at, keep: 23h}}", "1: table orders: keep must be"),
        ("tables: {orders: {column: at, keep: 30}}", "1: table orders: keep must be"),
        ("tables: {orders: {column: at, keep: 99999d}}", "1: table orders: keep must be"),
        ("tables: {orders: {column: at, keep: soon}}", "1: table orders: keep must be"),
        ("tables: {orders: {keep: 1d}}", "1: table orders: column is missing"),
        ("tables: {orders: {column: 'a\" b', keep: 1d}}", "1: table orders: column cannot be"),
        ("tables: {orders: {column: at, keep: 1d, unit: seconds}}", "1: table orders: unit cannot be 'seconds'"),
        ("tables: {orders: {column: at, keep: 1d, where: x}}", "1: table orders: unknown key where"),
        ("tables: {'x; DROP TABLE y': {column: at, keep: 1d}}", "not the plain name of a table"),
        ("tables: {a.b.c: {column: at, keep: 1d}}", "not the plain name of a table"),
        ("tables: {penstock_outbox: {column: created, keep: 1d}}", "not the application's"),
        ("tables: {PG_class: {column: at, keep: 1d}}", "not the application's"),
        ("tables: {information_schema.tables: {column: at, keep: 1d}}", "not the application's"),
        ("tables: {marks: {column: at, keep: 1d}}", "the name is taken by the store's marks"),
        ("folders: {marks: {path: a, files: ['*'], keep: 1d}}", "1: folder marks: the name is taken"),
        ("folders: {out: {path: /, files: ['*'], keep: 1d}}", "1: folder out: path cannot be '/'"),
        ("folders: {out: {path: /var/../etc, files: ['*'], keep: 1d}}", "1: folder out: path cannot be"),
        ("folders: {out: {path: a, keep: 1d}}", "1: folder out: say which files, for example"),
        ("folders: {out: {files: ['*'], keep: 1d}}", "1: folder out: path is missing"),
        ("folders: {../out: {path: a, files: ['*'], keep: 1d}}", "folder ../out: not a plain name"),
        ("files: {}", "1: the file: unknown key files"),
        ("- tables", "1: the file must be a mapping"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused_with_file_and_line(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules(text)
    assert any(problem.startswith("rules.yaml:1: ") and words in problem for problem in caught.value.problems)


def test_every_problem_of_the_rules_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_rules("tables:\n  a: {keep: 1d}\n  b: {column: at}\nfolders:\n  a: {path: a, files: ['*'], keep: 1d}")
    lines = [problem.split(":")[1] for problem in caught.value.problems]
    assert lines == ["2", "3", "5"]


def test_rules_that_are_not_there_are_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_rules(tmp_path / "none.yaml")


def test_the_janitor_is_built_as_shipped_and_with_its_longest_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JANITOR_BUDGET", "10m")
    worker = build()
    worker.limit_to(["maintenance.*"])
    assert {handler.kind.name for handler in worker.handlers} == {PURGE_EXPIRED.name}
    assert read_rules(RULES).names == ("credit_entries", "mailer_subscribers", "orders", "media", "reports", "marks")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("JANITOR_BUDGET", "11m", "JANITOR_BUDGET: "),
        ("JANITOR_BUDGET", "soon", "JANITOR_BUDGET: 'soon' is not a duration"),
        ("PENSTOCK_STORE_URL", "redis://user:secret@127.0.0.1:1/0", "has rules for tables, and redis://127.0.0.1:1/0"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        build()
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def a_file(path: Path, *, days: float) -> Path:
    """A file at *path* that was last written so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("data")
    age(path, days)
    return path


def age(path: Path, days: float) -> None:
    then = time.time() - days * 86_400
    os.utime(path, (then, then), follow_symlinks=False)


def a_folder(path: Path, *patterns: str) -> Folder:
    return Folder(FolderRule("out", path, patterns or ("*.pdf",), KEEP))


async def delete(folder: Folder, limit: int = 1000) -> int:
    return await folder.delete(NOW - KEEP, limit)


async def test_old_files_of_the_named_kinds_go_wherever_they_are_below_the_folder(tmp_path: Path) -> None:
    gone = [a_file(tmp_path / name, days=31) for name in ("a.pdf", "2026-07/b.pdf", "2026-07/deep/c.pdf")]
    kept = [
        a_file(tmp_path / "2026-07/fresh.pdf", days=29),
        a_file(tmp_path / "old.txt", days=99),
        a_file(tmp_path / "2026-07/.hidden", days=99),
    ]
    assert await a_folder(tmp_path).count(NOW - KEEP) == 3
    assert await delete(a_folder(tmp_path)) == 3
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)
    assert await delete(a_folder(tmp_path)) == 0


async def test_batches_of_one_walk_delete_everything_once(tmp_path: Path) -> None:
    for number in range(7):
        a_file(tmp_path / f"{number % 2}/{number}.pdf", days=40)
    folder = a_folder(tmp_path)
    assert [await delete(folder, 3) for _ in range(4)] == [3, 3, 1, 0]


async def test_nothing_is_reached_by_a_symbolic_link_and_no_link_is_removed(tmp_path: Path) -> None:
    outside = a_file(tmp_path / "outside/a.pdf", days=99)
    age(outside.parent, 99)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "folder").symlink_to(outside.parent)
    (inside / "file.pdf").symlink_to(outside)
    (inside / "dangling.pdf").symlink_to(tmp_path / "none")
    for link in inside.iterdir():
        age(link, 99)
    assert await delete(a_folder(inside, "*")) == 0
    assert outside.exists()
    assert len(list(inside.iterdir())) == 3


async def test_a_folder_that_has_been_empty_for_long_goes_and_one_that_became_empty_just_now_stays(
    tmp_path: Path,
) -> None:
    (tmp_path / "long" / "empty").mkdir(parents=True)
    a_file(tmp_path / "now" / "a.pdf", days=31)
    for path in (tmp_path / "long" / "empty", tmp_path / "long", tmp_path / "now", tmp_path):
        age(path, 31)
    assert await delete(a_folder(tmp_path)) == 1
    assert not (tmp_path / "long" / "empty").exists()
    assert (tmp_path / "now").exists()


async def test_a_folder_that_is_not_there_is_absent_and_one_behind_a_link_is_meant(tmp_path: Path) -> None:
    a_file(tmp_path / "real" / "a.pdf", days=31)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert not await a_folder(tmp_path / "none").present()
    assert await a_folder(tmp_path / "link").present()
    assert await delete(a_folder(tmp_path / "link")) == 1


class Stubborn:
    """Something of which nothing can be deleted."""

    keep = KEEP

    async def present(self) -> bool:
        return True

    async def delete(self, before: datetime, limit: int) -> int:
        raise Problem(f"nothing goes, not even {limit} before {before.year}")

    async def count(self, before: datetime) -> int | None:
        raise Problem(f"nothing can be counted before {before.year}")


async def test_what_is_wrong_with_one_stops_none_of_the_others(tmp_path: Path) -> None:
    a_file(tmp_path / "a.pdf", days=31)
    everything: dict[str, Expiring] = {
        "first": Stubborn(),
        "out": a_folder(tmp_path),
        "none": a_folder(tmp_path / "none"),
    }
    swept = await sweep(everything, Terms(NOW, timedelta(), 10, timedelta(seconds=30)))
    assert swept.counts == {"first": 0, "out": 1}
    assert swept.absent == ["none"]
    assert swept.problems == [f"nothing goes, not even 10 before {(NOW - KEEP).year}"]


@pytest.mark.parametrize(
    "body",
    [
        '{"dryrun": true}',
        '{"only": ["a; DROP TABLE b"]}',
        '{"older_than_days": 0}',
        '{"older_than_days": -9}',
        '{"batch": 0}',
        '{"batch": 5001}',
        '{"as_of": "2026-08-03T00:30:00"}',
        '{"as_of": "1026-08-03T00:30:00Z"}',
    ],
)
def test_a_purge_that_cannot_be_meant_is_refused(body: str) -> None:
    with pytest.raises(SchemaError):
        PURGE_EXPIRED.decode(body.encode())


def test_our_schedules_ask_for_kinds_of_the_catalogue_with_arguments_that_fit() -> None:
    kinds, night = {kind.name: kind for kind in KINDS}, int(datetime(2026, 8, 2, 12, tzinfo=UTC).timestamp())
    asked = {}
    for schedule in read_schedules(REPO / "services/scheduler/schedules.yaml"):
        due = schedule.after(night)
        assert due is not None
        args = kinds[schedule.kind].decode(orjson.dumps(render(schedule, due)))
        asked[schedule.name] = (utc_text(due), args)
    assert asked == {
        "purge-expired": ("2026-08-03T00:30:00Z", PurgeExpired(as_of=datetime(2026, 8, 3, 0, 30, tzinfo=UTC))),
        "daily-digest": ("2026-08-03T05:00:00Z", DailyDigest(date=date(2026, 8, 3))),
        "sync-pull": ("2026-08-02T12:15:00Z", SyncPull()),
    }
