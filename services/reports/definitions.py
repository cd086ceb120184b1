"""The reports that the operator has defined, from a YAML file: what is asked of which database, and how it is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from penstock import ConfigError
from penstock.topology.form import Form, near
from penstock.topology.strict_yaml import Items, Node, Scalar, parse, read_text
from services.reports.outline import (
    NUMERIC,
    PDF_ROWS,
    TEMPORAL,
    TOP,
    Bucket,
    Chart,
    ChartKind,
    Column,
    Outline,
    Type,
    Value,
)
from services.reports.parameters import PUBLISHED, Parameter, read_arguments, read_as
from services.reports.spelling import spelled
from services.reports.statement import BadStatement, Statement

W = TypeVar("W", bound=StrEnum)

#: The most that a PDF shows of a table, and a chart of bars; a table has at most so many columns.
MAX_PDF_ROWS, MAX_TOP, MAX_COLUMNS = 5000, 50, 100

_MAX_PLACES = 20

_REPORT = re.compile(r"[a-z][a-z0-9-]{0,39}")
_PARAMETER = re.compile(r"[a-z][a-z0-9_]{0,39}")
_DATABASE = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_FIELDS = ("title", "database", "sql", "parameters", "columns", "chart", "pdf_rows")


@dataclass(frozen=True, slots=True)
class Definition:
    """One report: the *statement* that *database* is asked, with its *parameters*, and how the answer is shown."""

    name: str
    database: str
    statement: Statement
    outline: Outline
    parameters: Mapping[str, Parameter]

    @property
    def types(self) -> Mapping[str, Type]:
        """What each parameter is, the one that every report has included."""
        return {name: each.type for name, each in self.parameters.items()} | {PUBLISHED: Type.TIMESTAMP}

    def arguments(self, given: Mapping[str, object], published: datetime) -> Mapping[str, Value]:
        """A value for each parameter of the statement. Raises ``BadArguments``."""
        values = read_arguments(self.parameters, given) | {PUBLISHED: published}
        return {name: values[name] for name in dict.fromkeys(self.statement.names)}

    def note(self, arguments: Mapping[str, Value]) -> str:
        """The arguments in words."""
        return ", ".join(f"{name} {spelled(value)}" for name, value in arguments.items() if value is not None)


def read_definitions(path: Path) -> Mapping[str, Definition]:
    """The reports in the file at *path*, by name. Raises ``ConfigError`` with all its problems, each as
    ``file:line: what is wrong``."""
    return parse_definitions(read_text(path), str(path))


def parse_definitions(text: str, file: str = "reports.yaml") -> Mapping[str, Definition]:
    """Read *text*; *file* is its name in errors. Raises as ``read_definitions`` does."""
    form = Form(file)
    top = form.fields(parse(text, file), ("reports",), "the file")
    found = {
        name: _definition(form, name, key, node) for name, key, node in form.entries(top.get("reports"), "reports")
    }
    if form.problems:
        raise ConfigError(*form.problems)
    return found


def _definition(form: Form, name: str, key: Node, node: Node) -> Definition:
    what = f"report {name}"
    if not _REPORT.fullmatch(name):
        form.problem(key, f"{what:.80}: a name has a-z, 0-9 and -, and begins with a letter")
    given = form.fields(node, _FIELDS, what)
    for missing in [field for field in ("title", "database", "sql", "columns") if field not in given]:
        form.problem(key, f"{what}: {missing} is missing")
    texts = {field: form.text(given[field], f"{what}: {field}") for field in ("title", "database") if field in given}
    if texts.get("database") and not _DATABASE.fullmatch(texts["database"]):
        form.problem(given["database"], f"{what}: database is a name such as shop; REPORTS_DATABASES says where it is")
    parameters = {
        each: _parameter(form, f"{what}: parameter {each}", each, at, value)
        for each, at, value in form.entries(given.get("parameters"), f"{what}: parameters")
    }
    outline = Outline(
        texts.get("title", name),
        _columns(form, what, given.get("columns")),
        pdf_rows=form.whole(given.get("pdf_rows"), f"{what}: pdf_rows", 0, MAX_PDF_ROWS, PDF_ROWS),
    )
    if "chart" in given:
        outline = _with_chart(form, f"{what}: chart", given["chart"], outline)
    statement = _statement(form, what, given.get("sql"), parameters)
    return Definition(name, texts.get("database", ""), statement, outline, parameters)


def _statement(form: Form, what: str, node: Node | None, parameters: Mapping[str, Parameter]) -> Statement:
    sql = form.text(node, f"{what}: sql") if node is not None else ""
    if node is None or not sql:
        return Statement(("",))
    try:
        statement = Statement.parse(sql)
    except BadStatement as error:
        form.problem(node, f"{what}: sql: {error}")
        return Statement(("",))
    known = (*parameters, PUBLISHED)
    for name in [name for name in dict.fromkeys(statement.names) if name not in known]:
        form.problem(node, f"{what}: sql has :{name}, which is none of its parameters{near(name, known)}")
    for name in [name for name in parameters if name not in statement.names]:
        form.problem(node, f"{what}: sql does not use parameter {name}: write :{name}")
    return statement


def _parameter(form: Form, what: str, name: str, key: Node, node: Node) -> Parameter:
    if not _PARAMETER.fullmatch(name) or name == PUBLISHED:
        form.problem(key, f"{what:.80}: a name has a-z, 0-9 and _, begins with a letter, and is not {PUBLISHED}")
    given = form.fields(node, ("type", "optional", "default", "choices"), what)
    type_ = _word(form, given.get("type"), f"{what}: type", Type, Type.TEXT)
    optional = form.flag(given.get("optional"), f"{what}: optional") or "default" in given
    choices = given.get("choices")
    if choices is not None and not isinstance(choices, Items):
        form.problem(choices, f"{what}: choices must be a list")
    allowed = [_value(form, f"{what}: choices", each, type_) for each in getattr(choices, "nodes", ())]
    default = _value(form, f"{what}: default", given["default"], type_) if "default" in given else None
    if default is not None and allowed and default not in allowed:
        form.problem(given["default"], f"{what}: default is none of the choices")
    return Parameter(name, type_, optional, default, tuple(allowed))


def _columns(form: Form, what: str, node: Node | None) -> tuple[Column, ...]:
    entries = form.entries(node, f"{what}: columns")
    if node is not None and not 1 <= len(entries) <= MAX_COLUMNS:
        form.problem(node, f"{what}: columns are 1 to {MAX_COLUMNS}, named as in the SQL")
    return tuple(_column(form, f"{what}: column {name}", name, value) for name, _, value in entries)


def _column(form: Form, what: str, name: str, node: Node) -> Column:
    given = form.fields(node, ("type", "label", "places", "total"), what)
    type_ = _word(form, given.get("type"), f"{what}: type", Type, Type.TEXT)
    label = form.text(given["label"], f"{what}: label") if "label" in given else ""
    places = form.whole(given["places"], f"{what}: places", 0, _MAX_PLACES, 0) if "places" in given else None
    total = form.flag(given.get("total"), f"{what}: total")
    if places is not None and type_ is not Type.DECIMAL:
        form.problem(given["places"], f"{what}: places are for the type decimal")
    if total and type_ not in NUMERIC:
        form.problem(given["total"], f"{what}: only numbers have a total, not the type {type_}")
    return Column(name, type_, label, places, total)


def _with_chart(form: Form, what: str, node: Node, outline: Outline) -> Outline:
    given = form.fields(node, ("kind", "label", "value", "by", "top"), what)
    columns = {column.name: column for column in outline.columns}
    label = _column_of(form, f"{what}: label", node, given.get("label"), columns)
    value = _column_of(form, f"{what}: value", node, given["value"], columns) if "value" in given else None
    kind = _word(form, given.get("kind"), f"{what}: kind", ChartKind, ChartKind.BAR)
    by = _word(form, given["by"], f"{what}: by", Bucket, Bucket.DAY) if "by" in given else None
    if value is not None and value.type not in NUMERIC:
        form.problem(given["value"], f"{what}: value is a column of numbers, and {value.name} is of type {value.type}")
    if label is not None and by is not None and label.type not in TEMPORAL:
        form.problem(given["by"], f"{what}: by is for dates and timestamps, and {label.name} is of type {label.type}")
    if label is not None and by is None and label.type is Type.TIMESTAMP:
        form.problem(node, f"{what}: {label.name} is a timestamp: say by, one of {', '.join(Bucket)}")
    top = form.whole(given.get("top"), f"{what}: top", 1, MAX_TOP, TOP)
    if label is None:
        return outline
    return replace(outline, chart=Chart(label.name, value.name if value else None, kind, by, top))


def _column_of(form: Form, what: str, place: Node, node: Node | None, columns: Mapping[str, Column]) -> Column | None:
    if node is None:
        form.problem(place, f"{what} is missing: the column that its sums are told apart by")
        return None
    name = form.text(node, what)
    if name and name not in columns:
        form.problem(node, f"{what}: {name} is no column{near(name, columns)}")
    return columns.get(name)


def _value(form: Form, what: str, node: Node, type_: Type) -> Value:
    """A value that is written in the file: dates and decimals as they are written, whatever YAML takes them for."""
    if not isinstance(node, Scalar):
        form.problem(node, f"{what} must be a single value")
        return None
    plain = node.value if type_ in (Type.INTEGER, Type.NUMBER, Type.BOOLEAN) else node.raw
    try:
        return read_as(type_, plain)
    except ValueError as error:
        form.problem(node, f"{what} {error}, not {node.raw!r:.40}")
        return None


def _word(form: Form, node: Node | None, what: str, words: type[W], default: W) -> W:
    """One of the *words*; a missing one is *default*."""
    if node is None:
        return default
    text = form.text(node, what)
    if text in list(words):
        return words(text)
    if text:
        form.problem(node, f"{what} cannot be {text!r:.40}; it is one of {', '.join(words)}{near(text, list(words))}")
    return default
