"""Reads a schedules file, and tells every problem of it at once, each with its line."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar  # a job's arguments are any JSON

from penstock.durations import duration
from penstock.errors import ConfigError, UsageError
from penstock.job import is_kind
from penstock.schedules.checking import Check
from penstock.schedules.model import MAX_CATCH_UP, CatchUp, Overlap, Schedule, Trigger, is_name
from penstock.schedules.rendering import PLACES, unknown_places
from penstock.schedules.triggers import Cron, Every, Once
from penstock.schedules.zones import zone
from penstock.topology.form import Form
from penstock.topology.strict_yaml import Entries, Items, Node, Scalar, parse, read_text

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

#: A hundred thousand schedules take some 20 MB.
MAX_FILE = 64 * 1024 * 1024
_LARGE = 1024 * 1024

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
_TIMES = ("cron", "every", "at")
_FIELDS = (
    *_TIMES,
    "anchor",
    "kind",
    "args",
    "zone",
    "catch_up",
    "max_catch_up",
    "overlap",
    "jitter",
    "grace",
    "starts",
    "ends",
    "expires",
    "enabled",
)


def read_schedules(path: Path, *checks: Check) -> tuple[Schedule, ...]:
    """Read the file at *path*. Raises ``ConfigError`` with all its problems, each as ``file:line: what is wrong``.

    Every schedule that can be read also has to pass the *checks*.
    """
    return parse_schedules(read_text(path, MAX_FILE), str(path), *checks)


def parse_schedules(text: str, file: str = "schedules.yaml", *checks: Check) -> tuple[Schedule, ...]:
    """Read *text*; *file* is its name in errors. Raises ``ConfigError`` as ``read_schedules`` does."""
    with _uncollected(len(text)):
        return _read(text, file, checks)


def _read(text: str, file: str, checks: Sequence[Check]) -> tuple[Schedule, ...]:
    form = Form(file)
    top = form.fields(parse(text, file, MAX_FILE), ("zone", "schedules"), "the file")
    place = _zone(form, top.get("zone"), "zone", "UTC")
    entries = form.entries(top.get("schedules"), "schedules")
    found = tuple(_schedule(form, place, checks, *entry) for entry in entries)
    if form.problems:
        raise ConfigError(*form.problems)
    return tuple(schedule for schedule in found if schedule is not None)


@contextmanager
def _uncollected(size: int) -> Iterator[None]:
    """Keep the garbage collector away while a large file is read: there is none, and it would look at all of it again
    and again, for a third of the time. And from what was read, which stays: a look at it would hold up ticks."""
    if size < _LARGE or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _schedule(form: Form, place: str, checks: Sequence[Check], name: str, key: Node, node: Node) -> Schedule | None:
    what, before = f"schedules.{name}", form.noted
    if not is_name(name):
        form.problem(key, f"{what}: a name has a-z, 0-9, _, - and dots, at most 100, and begins with a letter or digit")
    fields = form.fields(node, _FIELDS, what)
    place = _zone(form, fields.get("zone"), f"{what}.zone", place)
    trigger = _trigger(form, fields, key, place, what)
    kind = form.text(fields["kind"], f"{what}.kind") if "kind" in fields else ""
    if "kind" not in fields:
        form.problem(key, f"{what}: say which kind of job it asks for: kind: email.send")
    elif kind and not is_kind(kind):
        form.problem(fields["kind"], f"{what}.kind: {kind!r:.60} is not a kind such as email.send")
    values: dict[str, Any] = {
        each: _READERS[each](form, node, f"{what}.{each}") for each, node in fields.items() if each in _READERS
    }
    if trigger is None:
        return None
    schedule = Schedule(name, kind, trigger, zone=place, line=key.line, **values)
    if form.noted == before:
        for field, words in (problem for check in checks for problem in check(schedule)):
            form.problem(fields.get(field, key), f"{what}.{field}: {words}")
    return schedule


def _trigger(form: Form, fields: Mapping[str, Node], key: Node, place: str, what: str) -> Trigger | None:
    given = [each for each in _TIMES if each in fields]
    if len(given) != 1:
        named = f", not {' and '.join(given)}" if given else ""
        form.problem(key, f"{what}: say when with exactly one of cron, every and at{named}")
        return None
    if "anchor" in fields and given != ["every"]:
        form.problem(fields["anchor"], f"{what}.anchor belongs to every")
    node = fields[given[0]]
    match given[0]:
        case "cron":
            return _cron(form, node, place, f"{what}.cron")
        case "every":
            seconds = _span(form, node, f"{what}.every")
            anchor = (_instant(form, fields["anchor"], f"{what}.anchor") or 0) if "anchor" in fields else 0
            return _made(form, node, f"{what}.every", lambda: _every(seconds, anchor)) if seconds is not None else None
        case _:
            instant = _instant(form, node, f"{what}.at")
            return None if instant is None else Once(instant)


def _cron(form: Form, node: Node, place: str, what: str) -> Cron | None:
    text = _raw(form, node, what)
    time_of_day = _CLOCK.fullmatch(text)
    if time_of_day:
        hour, minute = map(int, time_of_day.groups())
        form.problem(
            node, f'{what}: {text} is a time of day; every day at that time is written "{minute} {hour} * * *"'
        )
        return None
    return _made(form, node, what, lambda: Cron(text, place)) if text else None


def _every(length: timedelta, anchor: int) -> Every:
    if length % timedelta(seconds=1):
        raise UsageError("it takes whole seconds")
    return Every(length // timedelta(seconds=1), anchor)


def _made(form: Form, node: Node, what: str, make: Callable[[], T]) -> T | None:
    try:
        return make()
    except UsageError as error:
        form.problem(node, f"{what}: {error}")
        return None


def _zone(form: Form, node: Node | None, what: str, default: str) -> str:
    if node is None:
        return default
    name = form.text(node, what)
    if name and _made(form, node, what, lambda: zone(name)) is None:
        return default
    return name or default


def _raw(form: Form, node: Node, what: str) -> str:
    """The text of a word as it was written: ``0`` is no number where an expression stands."""
    if isinstance(node, Scalar) and node.raw:
        return node.raw
    form.problem(node, f"{what} must be a text")
    return ""


def _span(form: Form, node: Node, what: str) -> timedelta | None:
    """A duration; YAML takes ``1:30`` for the number 90."""
    text = _raw(form, node, what)
    if ":" in text:
        form.problem(
            node, f"{what}: {text} is read by YAML as a number of its own; write a duration such as 1h30m or 90s"
        )
        return None
    try:
        return duration(text) if text else None
    except ValueError as error:
        form.problem(node, f"{what}: {error}")
        return None


def _instant(form: Form, node: Node, what: str) -> int | None:
    """An instant in seconds since 1970 UTC; it must say how far it is from UTC."""
    text = _raw(form, node, what)
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        form.problem(node, f"{what}: {text!r:.40} is not an instant such as 2026-12-24T18:00:00+01:00")
        return None
    if when.utcoffset() is None:
        form.problem(node, f"{what}: {text} does not say in which zone: write it with its offset, such as {text}+01:00")
        return None
    return int(when.astimezone(UTC).timestamp())


def _one_of(form: Form, node: Node, choices: type[E], what: str) -> E | None:
    try:
        return choices(_raw(form, node, what))
    except ValueError:
        form.problem(node, f"{what} must be one of {', '.join(choices)}")
        return None


def _args(form: Form, node: Node, what: str) -> dict[str, Any]:
    if not isinstance(node, Entries):
        form.problem(node, f"{what} must be a mapping")
        return {}
    value: dict[str, Any] = _plain(form, node, what)
    for name in unknown_places(value):
        form.problem(node, f"{what}: nothing is known of {{{{ {name:.40} }}}}; known are {', '.join(PLACES)}")
    return value


def _plain(form: Form, node: Node, what: str) -> Any:
    match node:
        case Entries():
            return {name: _plain(form, value, f"{what}.{name}") for name, _, value in form.entries(node, what)}
        case Items(nodes=nodes):
            return [_plain(form, item, what) for item in nodes]
        case Scalar(value=value) if value is None or isinstance(value, str | int | float | bool):
            return value
        case _:
            form.problem(node, f"{what}: YAML takes this for a date; quote it")
            return None


#: How what a schedule may leave out is read, where it is there.
_READERS: Mapping[str, Callable[[Form, Node, str], object]] = {
    "args": _args,
    "catch_up": lambda form, node, what: _one_of(form, node, CatchUp, what),
    "max_catch_up": lambda form, node, what: form.whole(node, what, 1, 1000, MAX_CATCH_UP),
    "overlap": lambda form, node, what: _one_of(form, node, Overlap, what),
    "jitter": _span,
    "grace": _span,
    "starts": _instant,
    "ends": _instant,
    "expires": _span,
    "enabled": lambda form, node, what: form.flag(node, what),
}
