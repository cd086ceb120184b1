"""Reports in flat memory: ten times the rows take no more of it, and a million fit where a tenth of them would not."""

from __future__ import annotations

import json
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
from tests.support.reports import execute, many, yaml_of

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


def told_by(
    folder: Path, place: str, definition: str, arguments: str, *, memory: int = 1024, within: tuple[str, ...] = ()
) -> str:
    """Make a report on the database at *place* in a process that may address *memory* MiB, started *within* another
    program; what it says on standard error."""
    definitions = folder / "reports.yaml"
    definitions.write_text(f"reports:\n{definition}")
    settings = {
        "REPORTS_DEFINITIONS": str(definitions),
        "REPORTS_DATABASES": f"shop={place}",
        "REPORTS_OUTPUT_DIR": str(folder),
        "REPORTS_MEMORY": str(memory),
        "PENSTOCK_STORE_URL": f"sqlite:///{folder}/store.db",
    }
    made = subprocess.run(
        [*within, sys.executable, "-m", "services.reports", "run", arguments, "--id", "x"],
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    return made.stderr


def peak_of(folder: Path, place: str, rows: int, *formats: str, memory: int = 1024) -> int:
    """The most memory that a report of so many rows had (MiB), in a process that may address *memory* MiB."""
    arguments = json.dumps({"report": "many", "parameters": {"rows": rows}, "formats": formats})
    began = time.monotonic()
    told = told_by(folder, place, many(place), arguments, memory=memory)
    found = re.fullmatch(rf"reports: {rows} rows in [\d.]+ s, at most (\d+) MiB\n", told)
    assert found, told
    print(f"{place.partition(':')[0]}, {', '.join(formats)}: {time.monotonic() - began:.1f} s, {found[1]} MiB")  # noqa: T201
    return int(found[1])


def test_ten_times_the_rows_take_no_more_memory(place: str, tmp_path: Path) -> None:
    # The workbook is what takes longest, and the same code for both databases.
    rows, formats = (5_000, ("csv", "xlsx", "pdf")) if place.startswith("sqlite") else (10_000, ("csv", "pdf"))
    few, more = (peak_of(tmp_path, place, number, *formats) for number in (rows, 10 * rows))
    assert more <= few + SLACK


def test_a_trial_that_needs_more_memory_than_it_may_have_says_so_in_a_line(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path}/shop.db"
    execute(place, "CREATE TABLE orders (id INTEGER)")
    large = yaml_of("large", "SELECT hex(zeroblob(450000000)) AS a", "{a: {}}")
    limited = ("sh", "-c", 'ulimit -v 800000; exec "$@"', "sh")  # less than REPORTS_MEMORY, which nobody can raise
    told = told_by(tmp_path, place, large, '{"report": "large"}', within=limited)
    assert told == "reports: a report takes more memory than it may: REPORTS_MEMORY, or what this process was given\n"


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
