"""What reports ask of real databases: one state of the data, nothing changed, and who is to blame without an answer."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from penstock import Job, Reject
from penstock.testing.free_ports import LOOPBACK, free_ports
from penstock_jobs import TABLE_REPORT, TableReport
from services.reports.app import reports_of
from services.reports.command import main
from services.reports.handlers import Reports
from services.reports.outline import Column, Type
from services.reports.ports import BATCH, Database, DatabaseAway, Refused, TooSlow
from services.reports.settings import Settings
from services.reports.values import Reader
from tests.support.postgres import PrivatePostgres
from tests.support.reports import answer_of, database_at, execute, report_of, scheme_of, yaml_of

#: A query that takes longer than anybody waits.
ENDLESS = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) AS a FROM n",
    "postgresql": "SELECT pg_sleep(60)::text AS a",
}
#: What has to be said for a change to look like a query.
SNEAKY = {
    "sqlite": "WITH x AS (SELECT 1) DELETE FROM orders RETURNING id AS a",
    "postgresql": "SELECT emptied() AS a",
}


@pytest.fixture(name="url", params=["sqlite", "postgresql"])
def _url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with 2,500 orders."""
    url: str = f"sqlite:///{tmp_path}/shop.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500) SELECT i FROM n"
    execute(url, "CREATE TABLE orders (id INTEGER)", f"INSERT INTO orders {numbers}")
    return url


@pytest.fixture(name="database")
def _database(url: str) -> Database:
    return database_at(url)


def count(url: str) -> int:
    [(found,)] = answer_of(database_at(url), report_of("SELECT count(*) AS a FROM orders"))
    return int(found)


def test_what_a_message_gives_comes_back_as_what_it_was(database: Database) -> None:
    values = {
        "text": "Zażółć 日本 '; DROP TABLE orders; -- \\",
        "whole": 2**53 + 1,
        "exact": Decimal("-12.5"),
        "number": 0.1,
        "flag": True,
        "day": date(2026, 2, 28),
        "instant": datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
        "missing": None,
    }
    types = ("text", "integer", "decimal", "number", "boolean", "date", "timestamp", "date")
    names = dict(zip(values, types, strict=True))
    report = report_of(
        f"SELECT {', '.join(f':{name} AS {name}' for name in names)} WHERE :missing IS NULL",
        "{" + ", ".join(f"{name}: {{type: {type_}}}" for name, type_ in names.items()) + "}",
        "{" + ", ".join(f"{name}: {{type: {type_}, optional: true}}" for name, type_ in names.items()) + "}",
    )
    given = values | {"exact": "-12.5", "day": "2026-02-28", "instant": "2026-03-29T03:30:00+02:00"}
    [row] = answer_of(database, report, **given)
    reader = Reader([Column(name, Type(type_)) for name, type_ in names.items()], range(len(names)))
    assert reader.row(row) == list(values.values())


def test_a_report_is_of_one_state_whatever_changes_meanwhile(url: str, database: Database) -> None:
    if scheme_of(url) == "sqlite":
        execute(url, "PRAGMA journal_mode = WAL")  # else a writer waits for the report
    report = report_of("SELECT id AS a FROM orders ORDER BY id")
    with database.reading(report.statement, report.types, {}) as found:
        read = len(next(found.batches))
        execute(url, "DELETE FROM orders WHERE id > 100", "INSERT INTO orders VALUES (9999)")
        rest = [row[0] for batch in found.batches for row in batch]
    assert read == BATCH
    assert rest == list(range(BATCH + 1, 2501))
    assert count(url) == 101


def test_no_report_changes_anything(url: str, database: Database) -> None:
    if scheme_of(url) == "postgresql":
        deletes = "DELETE FROM orders RETURNING id"
        execute(url, f"CREATE FUNCTION emptied() RETURNS integer LANGUAGE sql AS '{deletes}'")
    with pytest.raises(Refused, match=r"read-?only"):
        answer_of(database, report_of(SNEAKY[scheme_of(url)]))
    with pytest.raises(Refused):
        answer_of(database, report_of("WITH x AS (DELETE FROM orders RETURNING id) SELECT id AS a FROM x"))
    assert count(url) == 2500


def test_an_answer_that_takes_too_long_is_given_up(url: str) -> None:
    with pytest.raises(TooSlow):
        answer_of(database_at(url, patience=0.2), report_of(ENDLESS[scheme_of(url)]))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT a FROM nowhere",
        "SELECT nothing AS a FROM orders",
        "SELECT FROM FROM",
        "SELECT sqrt('x' || id) AS a FROM orders",
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_in_one_line(url: str, database: Database, sql: str) -> None:
    if "sqrt" in sql and scheme_of(url) == "sqlite":
        sql = "SELECT json('x' || id) AS a FROM orders"
    with pytest.raises(Refused) as caught:
        answer_of(database, report_of(sql))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["postgresql", "sqlite"])
def test_a_database_that_is_not_there_is_away(url: str, tmp_path: Path) -> None:
    [port] = free_ports(1)
    place = f"sqlite:///{tmp_path}/none.db" if url == "sqlite" else f"postgresql://u:secret@{LOOPBACK}:{port}/d"
    with pytest.raises(DatabaseAway) as caught:
        answer_of(database_at(place), report_of("SELECT 1 AS a"))
    assert "secret" not in str(caught.value)
    assert not (tmp_path / "none.db").exists()


def test_a_user_who_may_only_read_is_enough(postgres_server: PrivatePostgres, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute("DROP ROLE IF EXISTS reader")
    postgres_server.execute("CREATE ROLE reader LOGIN")
    execute(postgres_url, "CREATE TABLE seen (a TEXT)", "CREATE TABLE secret (a TEXT)")
    execute(postgres_url, "GRANT SELECT ON seen TO reader")
    database = database_at(postgres_server.url(name, "reader"))
    assert answer_of(database, report_of("SELECT a FROM seen")) == []
    with pytest.raises(Refused, match="permission denied for table secret"):
        answer_of(database, report_of("SELECT a FROM secret"))
    execute(postgres_url, "DROP OWNED BY reader")
    postgres_server.execute("DROP ROLE reader")


def test_days_are_those_of_utc_whatever_the_database_says(postgres_server: PrivatePostgres, postgres_url: str) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_server.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    report = report_of("SELECT :at::date AS a", parameters="{at: {type: timestamp}}")
    [(day,)] = answer_of(database_at(postgres_url), report, at="2026-01-01T20:00:00Z")
    assert day == date(2026, 1, 1)


def test_what_python_has_no_date_for_is_refused(postgres_url: str) -> None:
    with pytest.raises(Refused, match="infinity"):
        answer_of(database_at(postgres_url), report_of("SELECT 'infinity'::date AS a"))


@pytest.mark.parametrize(
    ("sql", "max_rows", "reason"),
    [
        ("SELECT id AS a FROM orders", 2499, "it has more than 2,499 rows: REPORTS_MAX_ROWS"),
        ("SELECT id AS a FROM orders UNION ALL SELECT NULL UNION ALL SELECT -1", 2502, ""),
        (
            "SELECT CASE id WHEN 1999 THEN 'x' ELSE '1' END AS a FROM orders ORDER BY id",
            2500,
            "row 1999: a is 'x', not",
        ),
        ("SELECT id AS b FROM orders", 2500, "the query gives the columns b; defined are a"),
    ],
)
def test_what_a_report_cannot_have_rejects_it_and_leaves_no_file(
    database: Database, tmp_path: Path, sql: str, max_rows: int, reason: str
) -> None:
    reports = Reports(
        tmp_path, tmp_path / "out", {"r": report_of(sql, "{a: {type: integer}}")}, {"shop": database}, max_rows=max_rows
    )
    job = Job("1", TABLE_REPORT.name, TableReport(report="r", formats=("csv", "xlsx", "pdf")))
    if reason:
        with pytest.raises(Reject, match=f"report r: {reason}"):
            reports.table_report(job)
    else:
        assert reports.table_report(job)["rows"] == 2502
    assert len(list((tmp_path / "out" / "r").iterdir())) == (0 if reason else 3)


def test_a_report_on_a_store_that_nobody_can_report_on_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_URL", "redis://127.0.0.1:1/0")
    reports = reports_of(Settings(output_dir=tmp_path))
    with pytest.raises(Reject, match="REPORTS_DATABASES does not say where database store is"):
        reports.table_report(Job("1", TABLE_REPORT.name, TableReport(report="credit-ledger")))


def test_the_check_asks_the_databases_whether_they_take_the_queries(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REPORTS_DATABASES", f"shop={url}")
    reports = {
        "fine": "SELECT id AS a FROM orders WHERE id = :n OR :published IS NULL ORDER BY id -- the end",
        "other": "SELECT id AS b FROM orders WHERE id = :n",
        "none": "SELECT id AS a FROM nowhere WHERE id = :n",
    }
    file = tmp_path / "reports.yaml"
    texts = {name: yaml_of(name, sql, "{a: {type: integer}}", "{n: {type: integer}}") for name, sql in reports.items()}
    file.write_text(f"reports:\n{''.join(texts.values())}")
    assert main(["check", str(file), "--connect"]) == 6
    other, none = capsys.readouterr().err.splitlines()
    assert other == "reports: report other: the query gives the columns b; defined are a"
    assert none.startswith("reports: report none: ")
    assert "nowhere" in none
    file.write_text(f"reports:\n{texts['fine']}")
    assert main(["check", str(file), "--connect"]) == 0
