"""Reports on orders: sums, what a spreadsheet and a PDF reader find, and files that stay in their folder."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from pypdf import PdfReader

from penstock import ConfigError, Job, Reject, SchemaError
from penstock.service_files import Outside
from penstock_jobs.reports import SALES_REPORT, SalesReport
from services.reports.app import build
from services.reports.files import folder_in
from services.reports.handlers import MAX_SOURCE, Reports
from services.reports.sales import BadSource, ItemSales, add_up
from services.reports.settings import Settings

ORDERS = "order_id,item,quantity,amount\n1,teapot,2,49.80\n2,cup,1,7.10\n3,teapot,1,24.90\n"


@pytest.fixture(name="reports")
def _reports(tmp_path: Path) -> Reports:
    (tmp_path / "in" / "july").mkdir(parents=True)
    (tmp_path / "in" / "july" / "north.csv").write_text(ORDERS)
    return Reports(tmp_path / "in", tmp_path / "out", {}, {}, max_rows=1000)


def pages_of(reports: Reports, tmp_path: Path, orders: str) -> PdfReader:
    """The PDF of a report on *orders*."""
    (tmp_path / "in" / "july" / "north.csv").write_text(orders)
    return PdfReader(io.BytesIO((tmp_path / "out" / "july" / reports.sales_report(a_job())[1]).read_bytes()))


def a_job(job_id: str = "id-1", source: str = "north.csv", folder: str = "july") -> Job[SalesReport]:
    return Job(job_id, "report.sales", SalesReport(region="north", folder=folder, source=source))


def test_sales_are_added_up_by_item_the_best_first() -> None:
    sales = add_up("north", ORDERS.splitlines())
    assert sales.items == (ItemSales("teapot", 2, 3, Decimal("74.70")), ItemSales("cup", 1, 1, Decimal("7.10")))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["item,quantity"], "line 1: no column amount"),
        ([], "line 1: no column"),
        (["item,quantity,amount", "cup,1,7", "cup,one,7"], "line 3"),
        (["item,quantity,amount", "cup,1,NaN"], "line 2"),
        (["item,quantity,amount", "cup,1,1e999999"], "line 2"),
        (["item,quantity,amount", "cup"], "line 2"),
        (["item,quantity,amount", "," * 3], "line 2"),
        (["item,quantity,amount", f"cup,{'9' * 5000},1"], "line 2"),
        (["item,quantity,amount", '"cup,1,7'], "not CSV"),
    ],
)
def test_what_is_no_list_of_orders_is_told_by_its_line(lines: list[str], problem: str) -> None:
    with pytest.raises(BadSource, match=problem):
        add_up("north", lines)


def test_the_csv_can_be_read_back_and_starts_no_formula(reports: Reports, tmp_path: Path) -> None:
    (tmp_path / "in" / "july" / "north.csv").write_text("item,quantity,amount\n=cmd|' /C calc'!A0,1,5\ncup,1,7.1\n")
    [name, _] = reports.sales_report(a_job())
    cup, formula = csv.DictReader(io.StringIO((tmp_path / "out" / "july" / name).read_text()))
    assert cup == {"item": "cup", "orders": "1", "quantity": "1", "revenue": "7.10"}
    assert formula["item"].startswith("'=")


def test_the_pdf_holds_the_sums(reports: Reports, tmp_path: Path) -> None:
    text = pages_of(reports, tmp_path, f"{ORDERS}4,<b>日本 & \x07,1,1.00\n").pages[0].extract_text()
    assert "Sales: north" in text
    assert "3 rows, Orders 4, Quantity 5, Revenue 82.80 in all" in text
    assert "74.70" in text
    assert "<b>?? &" in text
    assert "2 different characters" in text


@pytest.mark.parametrize("count", [0, 1, 500])
def test_any_number_of_items_makes_a_pdf_with_all_of_them(reports: Reports, tmp_path: Path, count: int) -> None:
    rows = "".join(f"{'long name ' * 12}{n},1,{n}.50\n" for n in range(count))
    pages = pages_of(reports, tmp_path, f"item,quantity,amount\n{rows}").pages
    found = [line for page in pages for line in page.extract_text().splitlines() if line.startswith("long name")]
    assert len(found) == count + min(count, 8), "each in the table, and the best in the chart"


def test_a_report_is_a_csv_and_a_pdf_named_after_the_job(reports: Reports, tmp_path: Path) -> None:
    names = reports.sales_report(a_job())
    assert names == ["north-id-1.csv", "north-id-1.pdf"]
    assert sorted(path.name for path in (tmp_path / "out" / "july").iterdir()) == names


def test_a_second_run_leaves_the_same_files(reports: Reports, tmp_path: Path) -> None:
    reports.sales_report(a_job())
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "july").iterdir()}
    reports.sales_report(a_job())
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "july").iterdir()} == before


def test_a_missing_source_fails_the_attempt_and_a_bad_one_rejects_the_job(reports: Reports, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        reports.sales_report(a_job(source="later.csv"))
    (tmp_path / "in" / "july" / "bad.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(Reject, match=r"^july/bad.csv: after line 0: not CSV in UTF-8"):
        reports.sales_report(a_job(source="bad.csv"))


@pytest.mark.parametrize("field", ["region", "folder", "source"])
@pytest.mark.parametrize("value", ["..", "../x", "/etc", ".hidden", "a/b", "a\\b", "", "a\x00", "x" * 200, "a\n"])
def test_a_name_that_could_climb_breaks_the_schema(field: str, value: str) -> None:
    args = {"region": "north", "folder": "july", "source": "north.csv"} | {field: value}
    with pytest.raises(SchemaError, match=f"{field}: "):
        SALES_REPORT.decode(json.dumps(args).encode())


@pytest.mark.parametrize(
    ("folder", "name"),
    [("..", "secret.csv"), ("july", "../../secret.csv"), ("july", "link.csv"), ("away", "secret.csv")],
)
def test_no_name_leads_out_of_the_source_folder(reports: Reports, tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / "secret.csv").write_text(ORDERS)
    (tmp_path / "in" / "july" / "link.csv").symlink_to(tmp_path / "secret.csv")
    (tmp_path / "in" / "away").symlink_to(tmp_path)
    job = a_job()
    job.args = SalesReport.model_construct(region="north", folder=folder, source=name)
    with pytest.raises(Reject, match=r"is not a plain name|is a link"):
        reports.sales_report(job)


def test_no_name_leads_out_of_the_output_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "away").symlink_to(tmp_path)
    for folder in ("..", "away", "july/../.."):
        with pytest.raises(Outside):
            folder_in(tmp_path / "out", folder)


def test_an_id_with_slashes_stays_one_file_name(reports: Reports, tmp_path: Path) -> None:
    reports.sales_report(a_job("../../../tmp/evil"))
    assert {path.parent for path in tmp_path.rglob("*evil*")} == {tmp_path / "out" / "july"}


def test_long_ids_that_begin_alike_are_different_files(reports: Reports, tmp_path: Path) -> None:
    ids = [f"{'/' * 300}{number}" for number in range(2)]
    assert len({name for job_id in ids for name in reports.sales_report(a_job(job_id))}) == 4
    assert all(len(path.name) < 150 for path in (tmp_path / "out" / "july").iterdir())


def test_a_source_that_is_too_large_or_no_file_is_refused(reports: Reports, tmp_path: Path) -> None:
    folder = tmp_path / "in" / "july"
    (folder / "folder.csv").mkdir(parents=True)
    with (folder / "large.csv").open("wb") as file:
        file.truncate(MAX_SOURCE + 1)
    for name, words in (("folder.csv", "no regular file"), ("large.csv", "^july/large.csv: it is larger than")):
        with pytest.raises(Reject, match=words):
            reports.sales_report(a_job(source=name))


def test_the_worker_takes_its_limits_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLOTS": "3", "TIMEOUT": "7", "MEMORY": "256", "ATTEMPTS": "2"}.items():
        monkeypatch.setenv(f"REPORTS_{name}", value)
    worker = build()
    assert (worker.queue, worker.slots) == ("reports", 3)
    assert sorted(handler.kind.name for handler in worker.handlers) == ["report.sales", "report.table"]
    for handler in worker.handlers:
        assert (handler.timeout and handler.timeout.seconds, handler.memory) == (7, 256 * 1024 * 1024)
        assert (handler.isolation, handler.retry.max_attempts, handler.once) == ("process", 2, "lease")


def test_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPORTS_MEMORY", "1")
    with pytest.raises(ConfigError, match="REPORTS_MEMORY"):
        Settings.read()
