"""Reads a schedules file, and tells every problem of it at once, each with its line."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
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
from penstock.topology.strict_yaml import Apart, Entries, Items, Node, Scalar, parse, read_text

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

#: A hundred thousand schedules take some 20 MB.
MAX_FILE = 64 * 1024 * 1024
_LARGE = 1024 * 1024

#: What JSON has a word for.
_JSON = (str, int, float, bool, type(None))

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
_TIMES = ("cron", "every", "at")
_TOP = ("zone", "schedules")
_FIELDS = dict.fromkeys(
    (
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
).keys()

#: What many schedules say alike is found out once.
_cron_of = lru_cache(maxsize=16_384)(Cron)
_length_of = lru_cache(maxsize=4_096)(duration)


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
    reading = _Reading(file, checks)
    if reading.read(text):
        return reading.schedules
    again = _Reading(file, checks, reading.place)
    again.read(text)
    return again.schedules


class _Reading:
    """One way through a file. Its own zone has to be known before its schedules are: *place*, or what it says first."""

    def __init__(self, file: str, checks: Sequence[Check], place: str | None = None) -> None:
        self.place = place
        self._file = file
        self._checks = checks
        self._form = Form(file)
        self._lines: dict[str, int] = {}
        self._found: list[Schedule] = []

    @property
    def schedules(self) -> tuple[Schedule, ...]:
        """What was read. Raises ``ConfigError`` with all that is wrong."""
        if self._form.problems:
            raise ConfigError(*self._form.problems)
        return tuple(self._found)

    def read(self, text: str) -> bool:
        """Read *text*; whether the zone was the right one, else it is known now. Raises ``ConfigError``."""
        root = parse(text, self._file, MAX_FILE, Apart("schedules", self._begin, self._take))
        top = self._form.fields(root, _TOP, "the file")
        self._form.entries(top.get("schedules"), "schedules")  # empty by now, unless it is no mapping
        expected, self.place = self.place, _zone(self._form, top.get("zone"), "zone", "UTC")
        return not self._lines or expected == self.place

    def _begin(self, before: Entries) -> None:
        if self.place is None:
            form = Form(self._file)  # what is wrong is told when all of it is known
            self.place = _zone(form, form.fields(before, _TOP, "the file").get("zone"), "zone", "UTC")

    def _take(self, key: Node, node: Node) -> None:
        name = self._form.text(key, "a key of schedules")
        if name in self._lines:
            self._form.problem(key, f"schedules: {name} is here twice, first on line {self._lines[name]}")
        elif name:
            self._lines[name] = key.line
            schedule = _schedule(self._form, self.place or "UTC", self._checks, name, key, node)
            if schedule is not None:
                self._found.append(schedule)


@contextmanager
def _uncollected(size: int) -> Iterator[None]:
    """Keep the garbage collector away while a large file is read, and from what was read, which stays: there is none,
    and each look at all of it would hold up ticks."""
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
    return _made(form, node, what, lambda: _cron_of(text, place)) if text else None


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
        return _length_of(text) if text else None
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
    return int(when.timestamp())


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
    return value


def _plain(form: Form, node: Node, what: str) -> Any:
    if isinstance(node, Scalar):
        value = node.value
        if not isinstance(value, _JSON):
            form.problem(node, f"{what}: YAML takes this for a date; quote it")
            return None
        if isinstance(value, str) and "{{" in value:
            for name in unknown_places(value):
                form.problem(node, f"{what}: nothing is known of {{{{ {name:.40} }}}}; known are {', '.join(PLACES)}")
        return value
    if isinstance(node, Items):
        return [_plain(form, item, what) for item in node.nodes]
    fields = form.plain(node)
    if fields is None:
        fields = {name: value for name, _, value in form.entries(node, what)}
    return {name: _plain(form, value, f"{what}.{name}") for name, value in fields.items()}


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
