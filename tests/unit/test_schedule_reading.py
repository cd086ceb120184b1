"""What a schedules file may say, and what each mistake in it is answered."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from penstock import Events, JobKind
from penstock.errors import ConfigError
from penstock.events import Event
from penstock.schedules.checking import Check, fits, needs_store, sendable, taken
from penstock.schedules.events import SchedulesRefused
from penstock.schedules.model import CatchUp, Overlap
from penstock.schedules.reading import parse_schedules, read_schedules
from penstock.schedules.rendering import render
from penstock.schedules.triggers import Cron, Every, Once
from penstock.schedules.watching import Watched
from penstock.topology.reading import parse_spec

WHOLE = """
zone: Europe/Berlin
schedules:
  purge:
    cron: 30 2 * * *
    kind: maintenance.purge_expired
    args: {as_of: "{{ fire_time }}", day: "{{ fire_date }}", text: "after {{ previous_fire_time }}", n: [1, "{{name}}"]}
    catch_up: last
    overlap: skip
    jitter: 30s
    expires: 1h
  pull:
    every: 15m
    anchor: 2026-01-01T00:05:00Z
    kind: sync.pull
    zone: UTC
    enabled: false
    catch_up: all
    max_catch_up: 7
  party:
    at: 2026-12-24T18:00:00+01:00
    kind: email.send
"""


def test_a_whole_file_is_read() -> None:
    purge, pull, party = parse_schedules(WHOLE)
    assert purge.trigger == Cron("30 2 * * *", "Europe/Berlin")
    assert (purge.catch_up, purge.overlap, purge.jitter) == (CatchUp.LAST, Overlap.SKIP, timedelta(seconds=30))
    assert (purge.expires, purge.zone, purge.line) == (timedelta(hours=1), "Europe/Berlin", 4)
    assert pull.trigger == Every(900, 1_767_225_900)
    assert (pull.zone, pull.enabled, pull.max_catch_up) == ("UTC", False, 7)
    assert party.trigger == Once(1_798_131_600)


def test_arguments_tell_their_tick() -> None:
    purge = parse_schedules(WHOLE)[0]
    assert render(purge, 1_798_162_200) == {
        "as_of": "2026-12-25T01:30:00Z",
        "day": "2026-12-25",
        "text": "after 2026-12-24T01:30:00Z",
        "n": [1, "purge"],
    }


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{kind: email.send}", "schedules.x: say when with exactly one of cron, every and at"),
        ("{cron: '@daily', every: 5m, kind: email.send}", "exactly one of cron, every and at, not cron and every"),
        ("{cron: '61 * * * *', kind: email.send}", "schedules.x.cron: "),
        ("{cron: '0 0 30 2 *', kind: email.send}", "schedules.x.cron: "),
        ("{every: 1:30, kind: email.send}", "1:30 is read by YAML as a number of its own"),
        ("{every: 0s, kind: email.send}", "schedules.x.every: "),
        ("{every: 1500ms, kind: email.send}", "it takes whole seconds"),
        ("{at: 2026-12-24T18:00:00, kind: email.send}", "does not say in which zone"),
        ("{at: soon, kind: email.send}", "is not an instant"),
        ("{cron: '@daily', kind: Email Send}", "is not a kind"),
        ("{cron: '@daily'}", "say which kind of job"),
        ("{cron: '@daily', kind: email.send, zone: Europe/Berlim}", "schedules.x.zone: "),
        ("{cron: '@daily', kind: email.send, catch_up: some}", "must be one of none, last, all"),
        ("{cron: '@daily', kind: email.send, overlap: maybe}", "must be one of allow, skip, buffer-one"),
        ("{cron: '@daily', kind: email.send, enabled: 1}", "must be true or false"),
        ("{cron: '@daily', kind: email.send, args: {a: '{{ now }}'}}", "nothing is known of {{ now }}"),
        ("{cron: '@daily', kind: email.send, args: {a: 2026-01-01}}", "YAML takes this for a date; quote it"),
        ("{cron: '@daily', kind: email.send, catchup: last}", "did you mean catch_up?"),
        ("{cron: '@daily', kind: email.send, anchor: 2026-01-01T00:00:00Z}", "belongs to every"),
        ("{cron: */5 * * * *, kind: email.send}", "YAML takes */5 * * * * for an alias; quote a text"),
        (
            "{kind: email.send, cron: */5 * * * *}",
            "YAML takes */5 * * * * for an alias; quote a text that begins with *",
        ),
        ("{cron: 1:30, kind: email.send}", '1:30 is a time of day; every day at that time is written "30 1 * * *"'),
    ],
)
def test_a_mistake_is_told_with_file_and_line(entry: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedules(f"schedules:\n  x: {entry}\n", "my.yaml")
    assert told in str(caught.value)
    assert "my.yaml:2: " in str(caught.value)


def test_overlap_without_a_store_is_refused_with_the_reason() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedules(WHOLE, "my.yaml", needs_store)
    [problem] = caught.value.problems
    assert problem.startswith("my.yaml:9: schedules.purge.overlap: skip needs a store")


class Digest(BaseModel):
    """Arguments of a kind."""

    model_config = ConfigDict(extra="forbid")

    date: date
    since: datetime | None = None


KINDS = {"email.digest": JobKind("email.digest", Digest)}
SPEC = parse_spec("""
queues: {email: [email.*], report: [report.*]}
users: {ticker: {role: scheduler, publishes: [report.*]}}
""")
FITS = fits(KINDS, "shop:KINDS", 0)
TAKEN = taken(SPEC, "top.yaml")


@pytest.mark.parametrize(
    ("entry", "check", "told"),
    [
        (
            "kind: email.digets",
            FITS,
            "kind: no kind 'email.digets' in shop:KINDS; did you mean",
        ),
        (
            "kind: sync.pull",
            FITS,
            "kind: no kind 'sync.pull' in shop:KINDS; it has email.digest",
        ),
        (
            "kind: email.digest",
            FITS,
            "args: the arguments do not fit email.digest: date: Field",
        ),
        (
            "kind: email.digest, args: {date: '{{ fire_time_local }}'}",
            FITS,
            "(the tick of 1970-01-01T01:00:00Z)",
        ),
        (f"kind: email.digest, args: {{n: {2**70}}}", sendable(0), "args: the arguments of email.digest cannot be"),
        ("kind: email.digest, args: {a: %s}" % ("x" * 2**20), sendable(0), "over the limit of 1048576"),
        ("kind: reports.sales", TAKEN, "kind: no queue of top.yaml takes reports.sales"),
        (
            "kind: email.digest",
            TAKEN,
            "kind: the scheduler's user ticker may not publish email",
        ),
    ],
)
def test_what_cannot_run_or_reach_a_queue_is_told_with_file_line_and_field(entry: str, check: Check, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedules(f"schedules:\n  x: {{every: 1h, {entry}}}\n", "my.yaml", check)
    [problem] = caught.value.problems
    assert problem.startswith("my.yaml:2: schedules.x.")
    assert told in problem


def test_what_is_filled_in_is_what_has_to_fit() -> None:
    args = "{date: '{{ fire_date }}', since: '{{ previous_fire_time }}'}"
    text = f"schedules: {{x: {{cron: '@daily', kind: email.digest, starts: 2100-01-01T00:00:00Z, args: {args}}}}}"
    assert len(parse_schedules(text, "my.yaml", FITS, sendable(0))) == 1


def test_one_mistake_is_not_told_twice() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedules("schedules: {x: {cron: '@daily', kind: Nope}}", "my.yaml", FITS)
    assert len(caught.value.problems) == 1


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, Any]:
    """One schedule as a file may say it."""
    plain: list[dict[str, Any]] = [{"cron": "30 2 * * *"}, {"cron": "@daily"}, {"every": "15m"}, {"every": 90}]
    when = draw(
        st.sampled_from(plain)
        | st.just({"every": "1h", "anchor": "2026-01-01T00:05:00Z"})
        | st.just({"at": "2026-12-24T18:00:00+01:00"})
    )
    args = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=20) | st.just("{{ fire_time }}"),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=9), inner, max_size=3),
        max_leaves=6,
    )
    optional = {
        "args": st.dictionaries(st.text(min_size=1, max_size=9), args, max_size=3),
        "zone": st.sampled_from(["UTC", "Asia/Kolkata"]),
        "catch_up": st.sampled_from(["none", "last", "all"]),
        "max_catch_up": st.integers(1, 1000),
        "overlap": st.sampled_from(["allow", "skip"]),
        "jitter": st.sampled_from(["30s", 7]),
        "grace": st.just("5m"),
        "expires": st.just("1h30m"),
        "starts": st.just("2026-01-01T00:00:00Z"),
        "enabled": st.booleans(),
    }
    return {"kind": "email.send", **when, **draw(st.fixed_dictionaries({}, optional=optional))}


@settings(max_examples=40)
@given(entries=st.lists(schedules(), min_size=1, max_size=5), flow=st.booleans(), zone_last=st.booleans())
def test_a_large_file_says_what_its_schedules_say_one_by_one(
    entries: list[dict[str, Any]], flow: bool, zone_last: bool
) -> None:
    named = {f"s{number}": entry for number, entry in enumerate(entries)}
    parts = {"zone": "Europe/Berlin", "schedules": named}
    whole = dict(reversed(parts.items())) if zone_last else parts
    large = yaml.safe_dump(whole, sort_keys=False, default_flow_style=flow) + "#" * 40_000  # which another parser reads
    alone = [
        parse_schedules(yaml.safe_dump({"zone": "Europe/Berlin", "schedules": {name: entry}}))[0]
        for name, entry in named.items()
    ]
    assert [replace(each, line=0) for each in parse_schedules(large)] == [replace(each, line=0) for each in alone]


def test_each_mistake_of_a_large_file_has_its_line_and_those_of_its_shape_too() -> None:
    lines = [f"  s{number}: {{every: 15m, kind: email.send}}" for number in range(2_000)]
    lines[700] = "  s700: {every: 15m, kind: email.send, catchup: last}"
    lines[800] = "  s800: {every: 15m, kind: 7}"
    lines[900] = "  s900: never"
    lines[1_000] = "  s900: {every: 15m, kind: email.send}"
    lines[1_100] = "  s5: {every: 15m, kind: email.send}"
    lines[1_200] = "  7: {every: 15m, kind: email.send}"
    text = "\n".join(["schedules:", *lines, "zone: Europe/Berlim", ""])
    with pytest.raises(ConfigError) as caught:
        parse_schedules(text, "my.yaml")
    assert [problem.split(": ", 2)[:2] for problem in caught.value.problems] == [
        ["my.yaml:702", "schedules.s700"],
        ["my.yaml:802", "schedules.s800.kind must be a text, not 7 (quote it?)"],
        ["my.yaml:902", "schedules.s900 must be a mapping"],
        ["my.yaml:902", "schedules.s900"],
        ["my.yaml:902", "schedules.s900"],
        ["my.yaml:1002", "schedules"],
        ["my.yaml:1102", "schedules"],
        ["my.yaml:1202", "a key of schedules must be a text, not 7 (quote it?)"],
        ["my.yaml:2002", "zone"],
    ]
    assert caught.value.problems[5] == "my.yaml:1002: schedules: s900 is here twice, first on line 902"


@pytest.mark.parametrize("text", ["[schedules, {x: {}}]", "{a: {schedules: {x: {}}}}", "{[schedules]: {x: {}}}"])
def test_schedules_elsewhere_are_none(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedules(text, "my.yaml")
    [problem] = caught.value.problems
    assert problem.startswith(("my.yaml:1: the file must be", "my.yaml:1: the file: unknown key a", "my.yaml:1: a key"))


async def test_a_changed_file_is_taken_and_a_broken_one_told_once_while_the_old_goes_on(tmp_path: Path) -> None:
    path, told = tmp_path / "schedules.yaml", list[Event]()
    path.write_text(WHOLE)
    events = Events()
    events.subscribe(told.append)
    watched = Watched(path, read_schedules, events)
    assert len(watched.schedules) == 3
    assert not await watched.poll()
    path.write_text("schedules: {x: {}}")
    assert not await watched.poll()
    assert not await watched.poll()
    assert len(watched.schedules) == 3
    assert len([event for event in told if isinstance(event, SchedulesRefused)]) == 1
    (tmp_path / "new").write_text("schedules: {}\n")
    (tmp_path / "new").rename(path)
    assert await watched.poll()
    assert watched.schedules == ()
    path.unlink()
    assert not await watched.poll()


async def test_a_mounted_configuration_that_is_swapped_by_a_link_is_taken(tmp_path: Path) -> None:
    for version, name in (("1", "old"), ("2", "new")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "schedules.yaml").write_text(f"schedules: {{{name}: {{every: 1h, kind: email.send}}}}\n")
        os.utime(tmp_path / version / "schedules.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("1")
    (tmp_path / "schedules.yaml").symlink_to("..data/schedules.yaml")
    watched = Watched(tmp_path / "schedules.yaml", read_schedules, Events())
    (tmp_path / "..fresh").symlink_to("2")
    (tmp_path / "..fresh").rename(tmp_path / "..data")
    assert await watched.poll()
    assert [schedule.name for schedule in watched.schedules] == ["new"]
