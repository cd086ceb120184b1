"""Reports in flat memory: ten times the rows take no more of it, and a million fit where a tenth of them would not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from openpyxl import load_workbook
from pypdf import PdfReader

from tests.support.processes import ROOT
from tests.support.reports import execute, many

#: What ten times the rows may take more (MiB): what Python's own heap breathes.
SLACK = 5

MILLION = 1_000_000


@pytest.fixture(name="place", params=["sqlite", "postgresql"])
def _place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that makes rows up."""
    if request.param == "postgresql":
        url: str = request.getfixturevalue("postgres_url")
        return url
    execute(f"sqlite:///{tmp_path}/shop.db", "CREATE TABLE orders (id INTEGER)")
    return f"sqlite:///{tmp_path}/shop.db"


def peak_of(folder: Path, place: str, rows: int, *formats: str, memory: int = 1024) -> int:
    """Make a report of so many rows in a process that may address *memory* MiB; the most it had in memory (MiB)."""
    definitions = folder / "reports.yaml"
    definitions.write_text(f"reports:\n{many(place)}")
    settings = {
        "REPORTS_DEFINITIONS": str(definitions),
        "REPORTS_DATABASES": f"shop={place}",
        "REPORTS_OUTPUT_DIR": str(folder),
        "REPORTS_MEMORY": str(memory),
        "PENSTOCK_STORE_URL": f"sqlite:///{folder}/store.db",
    }
    listed = ", ".join(f'"{each}"' for each in formats)
    arguments = f'{{"report": "many", "parameters": {{"rows": {rows}}}, "formats": [{listed}]}}'
    began = time.monotonic()
    made = subprocess.run(
        [sys.executable, "-m", "services.reports", "run", arguments, "--id", "x"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    found = re.fullmatch(rf"reports: {rows} rows in [\d.]+ s, at most (\d+) MiB\n", made.stderr)
    assert found, made.stderr
    print(f"{place.partition(':')[0]}, {', '.join(formats)}: {time.monotonic() - began:.1f} s, {found[1]} MiB")  # noqa: T201
    return int(found[1])


def test_ten_times_the_rows_take_no_more_memory(place: str, tmp_path: Path) -> None:
    # The workbook is what takes longest, and the same code for both databases.
    rows, formats = (5_000, ("csv", "xlsx", "pdf")) if place.startswith("sqlite") else (10_000, ("csv", "pdf"))
    few, more = (peak_of(tmp_path, place, number, *formats) for number in (rows, 10 * rows))
    assert more <= few + SLACK


@pytest.mark.matrix
@pytest.mark.timeout(1800)
def test_a_million_rows_fit_into_little_memory(place: str, tmp_path: Path) -> None:
    every = ("csv", "xlsx", "pdf")
    for formats in (("csv",), ("xlsx",), ("pdf",), every):
        few = peak_of(tmp_path, place, 5_000, *formats)
        assert peak_of(tmp_path, place, MILLION, *formats, memory=512) <= few + SLACK
    folder = tmp_path / "many"
    with (folder / "many-x.csv").open() as file:
        assert sum(1 for _ in file) == MILLION + 1
    book = load_workbook(folder / "many-x.xlsx", read_only=True)
    assert sum(1 for _ in book.worksheets[0].values) == MILLION + 1
    book.close()
    assert "999,500 of 1,000,000 rows are left out here" in PdfReader(folder / "many-x.pdf").pages[-1].extract_text()
