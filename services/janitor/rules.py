"""The janitor's rules, from a YAML file: of which tables and folders it deletes what, and how long that is kept."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from penstock import ConfigError
from penstock.durations import duration
from penstock.topology.form import Form
from penstock.topology.strict_yaml import Node, Scalar, parse

#: The name under which the store's old marks are purged; their retention is the store's own.
MARKS = "marks"

#: The least that anything is kept, so that a slip of the pen does not empty a table; and the most.
SHORTEST, LONGEST = timedelta(days=1), timedelta(days=36_500)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_TABLE = re.compile(rf"(?:{_NAME.pattern}\.)?{_NAME.pattern}")
_NOT_OURS = ("penstock_", "sqlite_", "pg_", "information_schema.")


class Unit(StrEnum):
    """How a column says when."""

    #: A timestamp with its zone, as PostgreSQL has them; on SQLite, text in UTC that begins ``2026-08-03 07:00:00``.
    TIMESTAMP = "timestamp"
    #: Whole milliseconds since 1970 UTC.
    MILLISECONDS = "milliseconds"


@dataclass(frozen=True, slots=True)
class TableRule:
    """Rows of *table* are deleted once *column* is longer ago than *keep*; those where it is null are not."""

    table: str
    column: str
    keep: timedelta
    unit: Unit = Unit.TIMESTAMP


@dataclass(frozen=True, slots=True)
class FolderRule:
    """Files anywhere below *path* whose names fit one of the patterns *files* are deleted once they are older."""

    name: str
    path: Path
    files: tuple[str, ...]
    keep: timedelta


@dataclass(frozen=True, slots=True)
class Rules:
    """All of the rules; their names, of tables and folders together, are distinct."""

    tables: tuple[TableRule, ...] = ()
    folders: tuple[FolderRule, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every name by which a job may choose."""
        return (*(rule.table for rule in self.tables), *(rule.name for rule in self.folders), MARKS)


def read_rules(path: Path) -> Rules:
    """Read the file at *path*. Raises ``ConfigError`` with all its problems, each as ``file:line: what is wrong``."""
    try:
        return parse_rules(path.read_text("utf-8-sig"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def parse_rules(text: str, file: str = "rules.yaml") -> Rules:
    """Read *text*; *file* is its name in errors. Raises as ``read_rules`` does."""
    form = Form(file)
    top = form.fields(parse(text, file), ("tables", "folders"), "the file")
    tables = tuple(_table(form, *entry) for entry in form.entries(top.get("tables"), "tables"))
    folders = tuple(_folder(form, *entry) for entry in form.entries(top.get("folders"), "folders"))
    _check_distinct(form, top, tables, folders)
    if form.problems:
        raise ConfigError(*form.problems)
    return Rules(tables, folders)


def _table(form: Form, name: str, key: Node, node: Node) -> TableRule:
    what = f"table {name}"
    if not _TABLE.fullmatch(name):
        form.problem(key, f"{what:.80}: not the plain name of a table, such as orders or shop.orders")
    if name.lower().startswith(_NOT_OURS):
        form.problem(key, f"{what}: not the application's; the store's own marks go by themselves ({MARKS})")
    fields = form.fields(node, ("column", "keep", "unit"), what)
    column = _text(form, fields.get("column"), key, f"{what}: column", _NAME.fullmatch)
    unit = _text(form, fields.get("unit"), key, f"{what}: unit", lambda word: word in list(Unit), Unit.TIMESTAMP)
    keep = _keep(form, fields.get("keep"), key, what)
    return TableRule(name, column, keep, Unit(unit) if unit in list(Unit) else Unit.TIMESTAMP)


def _folder(form: Form, name: str, key: Node, node: Node) -> FolderRule:
    what = f"folder {name}"
    if not _NAME.fullmatch(name):
        form.problem(key, f"{what:.80}: not a plain name of letters, digits and _")
    fields = form.fields(node, ("path", "files", "keep"), what)
    path = _text(form, fields.get("path"), key, f"{what}: path", _is_inside)
    if "files" not in fields:
        form.problem(key, f"{what}: say which files, for example `files: ['*.pdf']`")
    files = tuple(pattern for pattern, _ in form.texts(fields.get("files"), f"{what}: files"))
    return FolderRule(name, Path(path), files, _keep(form, fields.get("keep"), key, what))


def _check_distinct(
    form: Form, top: dict[str, Node], tables: tuple[TableRule, ...], folders: tuple[FolderRule, ...]
) -> None:
    names = [rule.table for rule in tables]
    if MARKS in names:
        form.problem(top["tables"], f"table {MARKS}: the name is taken by the store's marks")
    for name in (rule.name for rule in folders):
        if name in (*names, MARKS):
            form.problem(top["folders"], f"folder {name}: the name is taken")


def _text(
    form: Form, node: Node | None, key: Node, what: str, fits: Callable[[str], object], default: str | None = None
) -> str:
    if node is None and default is None:
        form.problem(key, f"{what} is missing")
    if node is None:
        return default or ""
    text = form.text(node, what)
    if text and not fits(text):
        form.problem(node, f"{what} cannot be {text!r:.80}")
    return text


def _is_inside(path: str) -> bool:
    """Whether *path* lies at least two steps below the root: the machine's own folders are nobody's to purge."""
    return len(Path(path).resolve().parts) > 2


def _keep(form: Form, node: Node | None, key: Node, what: str) -> timedelta:
    try:
        keep = duration(str(node.value)) if isinstance(node, Scalar) else timedelta()
    except ValueError:
        keep = timedelta()
    if not SHORTEST <= keep <= LONGEST:
        form.problem(node or key, f"{what}: keep must be a time from 1d to 36500d, such as 30d")
    return keep
