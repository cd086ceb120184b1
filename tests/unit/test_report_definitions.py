"""Definitions of reports: mistakes are told by file, line and field, and a message says values, never SQL."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from penstock import ConfigError, SchemaError
from penstock_jobs import TABLE_REPORT
from services.reports.app import build
from services.reports.command import main
from services.reports.databases import read_places
from services.reports.definitions import Definition, parse_definitions, read_definitions
from services.reports.fonts import VERA
from services.reports.outline import Bucket, Chart, ChartKind, Column, Type
from services.reports.parameters import BadArguments
from services.reports.settings import DEFINITIONS, Settings
from services.reports.statement import BadStatement, Statement

ORDERS = """\
reports:
  late-orders:
    title: Orders that are late
    database: shop
    parameters:
      region: {choices: [north, south]}
      since: {type: date, optional: true}
      least: {type: decimal, default: 12.50}
    sql: |
      SELECT id, placed, amount FROM orders
      WHERE region = :region AND (:since IS NULL OR placed >= :since) AND amount > :least
    columns:
      id: {type: integer, label: Order}
      placed: {type: timestamp}
      amount: {type: decimal, places: 2, total: true}
    chart: {kind: line, label: placed, by: month, value: amount}
    pdf_rows: 20
"""
NOW = datetime(2026, 8, 3, 7, tzinfo=UTC)


def the_report(text: str = ORDERS) -> Definition:
    [definition] = parse_definitions(text).values()
    return definition


def of_types(**types: str) -> Definition:
    """A report with a parameter of each of these types."""
    lines = "".join(f"      {name}: {{{words}}}\n" for name, words in types.items())
    marks = ", ".join(f":{name}" for name in types)
    return the_report(
        f"reports:\n  r:\n    title: T\n    database: d\n    parameters:\n{lines}    sql: SELECT {marks}\n"
        "    columns: {a: {}}\n"
    )


def test_a_definition_says_what_is_asked_and_how_the_answer_is_shown() -> None:
    report = the_report()
    assert (report.name, report.database, report.outline.title) == ("late-orders", "shop", "Orders that are late")
    assert report.outline.columns == (
        Column("id", Type.INTEGER, "Order"),
        Column("placed", Type.TIMESTAMP),
        Column("amount", Type.DECIMAL, places=2, total=True),
    )
    assert [column.heading for column in report.outline.columns] == ["Order", "Placed (UTC)", "Amount"]
    assert report.outline.chart == Chart("placed", "amount", ChartKind.LINE, Bucket.MONTH)
    assert report.outline.pdf_rows == 20


def test_the_reports_that_are_shipped_are_in_order_and_their_examples_are_theirs() -> None:
    reports = read_definitions(DEFINITIONS)
    examples = TABLE_REPORT.schema()["examples"]
    for example in examples:
        args = TABLE_REPORT.decode(json.dumps(example).encode())
        assert reports[args.report].arguments(args.parameters, NOW)
    assert {example["report"] for example in examples} == set(reports)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("late-orders:", "Late Orders:", "reports.yaml:2: report Late Orders: a name has"),
        ("    title: Orders that are late\n", "", "reports.yaml:2: report late-orders: title is missing"),
        (
            "database: shop",
            "database: postgresql://u:secret@h/d",
            "reports.yaml:4: report late-orders: database is a name",
        ),
        ("pdf_rows: 20", "pdf_rows: many", "reports.yaml:17: report late-orders: pdf_rows must be a whole number"),
        ("pdf_rows: 20", "rows: 20", "reports.yaml:17: report late-orders: unknown key rows"),
        ("type: date,", "type: day,", "reports.yaml:7: .*type cannot be 'day'; it is one of text, integer"),
        ("default: 12.50", "default: high", "reports.yaml:8: .*default must be a number.*not 'high'"),
        ("choices: [north, south]", "choices: north", "reports.yaml:6: .*choices must be a list"),
        ("region: {", "published: {", "reports.yaml:6: .*is not published"),
        ("AND amount > :least", "", "reports.yaml:9: .*sql does not use parameter least"),
        ("placed >= :since", "placed >= :sinse", "sql has :sinse, which is none .*; did you mean since"),
        ("SELECT id", "DELETE FROM orders; SELECT id", "reports.yaml:9: .*sql: it must be one query"),
        ("SELECT id", "UPDATE orders SET id", "begins with SELECT or WITH"),
        ("type: integer, label", "type: integer, places: 2, label", "places are for the type decimal"),
        ("placed: {type: timestamp}", "placed: {type: timestamp, total: true}", "only numbers have a total"),
        ("by: month, value: amount", "value: amount", "reports.yaml:16: .*placed is a timestamp: say by, one of day"),
        (
            "label: placed, by: month",
            "label: id, by: month",
            "by is for dates and timestamps, and id is of type integer",
        ),
        ("value: amount", "value: amonut", "reports.yaml:16: .*amonut is no column; did you mean amount"),
        ("value: amount", "value: placed", "value is a column of numbers"),
        ("kind: line", "kind: pie", "kind cannot be 'pie'; it is one of bar, line"),
        ("chart: {kind: line, label: placed, by: month,", "chart: {", "chart: label is missing"),
        (ORDERS.partition("    columns:")[2], " {}\n", "reports.yaml:12: .*columns are 1 to 100"),
    ],
)
def test_a_mistake_is_told_by_line_and_field(old: str, new: str, problem: str) -> None:
    assert old in ORDERS
    with pytest.raises(ConfigError, match=problem):
        parse_definitions(ORDERS.replace(old, new))


def test_all_mistakes_are_told_at_once() -> None:
    text = (
        ORDERS.replace("kind: line", "kind: pie").replace("database: shop", "database: 5").replace("pdf_rows", "rows")
    )
    with pytest.raises(ConfigError) as caught:
        parse_definitions(text)
    assert len(caught.value.problems) == 3


def test_arguments_become_what_their_parameters_are() -> None:
    report = of_types(
        a="type: integer",
        b="type: decimal",
        c="type: number",
        d="type: boolean",
        e="type: date",
        f="type: timestamp",
        g="",
    )
    given = {"a": 5, "b": "12.50", "c": 1, "d": True, "e": "2026-07-31", "f": "2026-07-31T10:00:00+02:00", "g": ":a"}
    assert report.arguments(given, NOW) == {
        "a": 5,
        "b": Decimal("12.50"),
        "c": 1.0,
        "d": True,
        "e": date(2026, 7, 31),
        "f": datetime(2026, 7, 31, 8, tzinfo=UTC),
        "g": ":a",
    }


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("text", 5),
        ("integer", "5"),
        ("integer", True),
        ("integer", 5.5),
        ("integer", 2**63),
        ("decimal", "NaN"),
        ("decimal", "1e400"),
        ("decimal", False),
        ("number", "5"),
        ("boolean", 1),
        ("boolean", "true"),
        ("date", "2026-02-30"),
        ("date", "31.07.2026"),
        ("date", 20260731),
        ("timestamp", "2026-07-31T10:00:00"),
        ("timestamp", "yesterday"),
        ("timestamp", "0001-01-01T00:00:00+05:00"),
    ],
)
def test_a_value_of_another_type_is_refused_with_what_it_should_be(type_: str, value: object) -> None:
    with pytest.raises(BadArguments, match=r"\Ap must be "):
        of_types(p=f"type: {type_}").arguments({"p": value}, NOW)


def test_what_does_not_fit_is_told_in_one_line() -> None:
    with pytest.raises(BadArguments) as caught:
        the_report().arguments({"region": "west", "sinse": "2026-01-01", "least": "much"}, NOW)
    assert str(caught.value) == (
        "sinse: no such parameter; did you mean since?; region must be one of north, south; "
        'least must be a number, best as a text such as "12.50"'
    )
    with pytest.raises(BadArguments, match=r"region is missing: it must be a text"):
        the_report().arguments({}, NOW)


def test_what_is_not_given_is_the_default_or_nothing() -> None:
    values = the_report().arguments({"region": "north", "since": None}, NOW)
    assert values == {"region": "north", "since": None, "least": Decimal("12.50")}
    assert the_report().note(values) == "region north, least 12.50"


def test_every_report_knows_when_its_job_was_published() -> None:
    report = the_report("reports: {r: {title: T, database: d, sql: 'SELECT :published AS a', columns: {a: {}}}}")
    assert report.arguments({}, NOW) == {"published": NOW}


def test_only_what_stands_outside_of_texts_and_comments_is_a_parameter() -> None:
    sql = """SELECT 'it''s :a', "col:b", x::text, :c, E'\\':d', $$:e$$, $t$ :f $t$ -- :g
        /* :h */ FROM t WHERE y = :c AND z = :i;"""
    statement = Statement.parse(sql)
    assert statement.names == ("c", "c", "i")
    written, order = statement.for_postgres({"c": Type.DATE, "i": Type.TEXT})
    assert order == ["c", "i"]
    assert written.count("$1::date") == 2
    assert written.endswith("z = $2::text")
    assert "x::text" in written
    assert "g" not in written.partition("$t$ --")[2].partition("FROM")[0], "a comment could end the query too early"
    assert ":c" in statement.for_sqlite()


def test_a_word_that_ends_in_e_does_not_change_what_the_text_behind_it_is() -> None:
    assert Statement.parse(r"SELECT a FROM t WHERE a LIKE'\' AND b = :b AND c = 'x'").names == ("b",)


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1; DROP TABLE x", "SELECT 1;;", "DROP TABLE x", "SELECT $1", "", "PRAGMA x", "COPY t TO 'x'", "-- SELECT"],
)
def test_what_is_not_a_single_query_is_refused(sql: str) -> None:
    with pytest.raises(BadStatement):
        Statement.parse(sql)


@pytest.mark.parametrize(
    "body",
    [
        {"report": "../x"},
        {"report": "x", "formats": []},
        {"report": "x", "formats": ["exe"]},
        {"report": "x", "parameters": {"A b": 1}},
        {"report": "x", "parameters": {"a": [1]}},
        {"report": "x", "parameters": {"a": "y" * 1001}},
        {"report": "x", "parameters": {f"p{n}": 1 for n in range(51)}},
        {"parameters": {}},
    ],
)
def test_a_message_that_could_mean_anything_else_breaks_the_schema(body: dict[str, object]) -> None:
    with pytest.raises(SchemaError):
        TABLE_REPORT.decode(json.dumps(body).encode())


def test_databases_are_named_and_a_password_is_never_shown() -> None:
    places = read_places("shop=postgresql://u:secret@h/shop\n stock=sqlite:////data/stock.db")
    assert {name: place.shown for name, place in places.items()} == {
        "shop": "postgresql://h/shop",
        "stock": "sqlite:////data/stock.db",
    }
    for text in (
        "postgresql://u:secret@h/d",
        "shop=redis://:secret@h/0",
        "shop=mysql://u:secret@h/d",
        "a=sqlite:///a a=sqlite:///b",
    ):
        with pytest.raises(ConfigError) as caught:
            read_places(text)
        assert "secret" not in str(caught.value)
        assert str(caught.value).startswith("REPORTS_DATABASES")


def test_a_worker_refuses_to_start_without_a_database_that_a_report_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "reports.yaml").write_text(ORDERS)
    monkeypatch.setenv("REPORTS_DEFINITIONS", str(tmp_path / "reports.yaml"))
    with pytest.raises(ConfigError, match=r"late-orders: REPORTS_DATABASES does not say where database shop is"):
        build()
    (tmp_path / "urls").write_text("shop=sqlite:////nowhere/shop.db\n")
    monkeypatch.setenv("REPORTS_DATABASES_FILE", str(tmp_path / "urls"))
    assert build()


def test_a_font_that_is_none_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTS_FONT", str(tmp_path / "font.ttf"))
    for data in (b"no font", VERA.read_bytes()[:500], _nameless(VERA.read_bytes())):
        (tmp_path / "font.ttf").write_bytes(data)
        with pytest.raises(ConfigError, match=r"REPORTS_FONT"):
            build()


def _nameless(font: bytes) -> bytes:
    """*font* without one of the tables that it has to have."""
    assert font.count(b"head", 0, 500) == 1
    return font.replace(b"head", b"haed", 1)


def test_the_check_tells_every_mistake_and_ends_with_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "reports.yaml"
    file.write_text(ORDERS.replace("kind: line", "kind: pie"))
    assert main(["check", str(file)]) == 5
    assert f"{file}:16: report late-orders: chart: kind cannot be 'pie'" in capsys.readouterr().err
    file.write_text(ORDERS)
    assert main(["check", str(file)]) == 6
    monkeypatch.setenv("REPORTS_DATABASES", f"shop=sqlite:///{tmp_path}/none.db")
    assert main(["check", str(file)]) == 0
    assert main(["check", str(file), "--connect"]) == 6
    assert "unable to open database file" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "0.0004", "2d"])
def test_a_patience_that_a_database_could_not_be_told_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTS_STATEMENT_TIMEOUT", value)
    with pytest.raises(ConfigError, match=r"REPORTS_STATEMENT_TIMEOUT"):
        Settings.read()
