"""What is written of a report: every value as it was, no formula, no half of a file, and the same bytes each time."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from openpyxl import load_workbook
from pypdf import PdfReader

from services.reports.files import Drafts
from services.reports.fonts import VERA, lettering
from services.reports.outline import Bucket, Chart, ChartKind, Column, Outline, Type
from services.reports.tally import MAX_LABELS, TooManyLabels
from services.reports.values import Reader, Unfit
from services.reports.writing import Writing, Written
from tests.support.full_disk import disk_of

ALL = ("csv", "xlsx", "pdf")
TEXT = Column("text")
AMOUNT = Column("amount", Type.DECIMAL, places=2, total=True)


def write(
    folder: Path, outline: Outline, *batches: Sequence[Sequence[object]], formats: Sequence[str] = ALL, **options: Any
) -> Written:
    """Write a report ``r`` of what a database gave into *folder*."""
    reader = Reader(outline.columns, range(len(outline.columns)))
    with Drafts(folder, "r") as drafts, Writing(outline, formats, drafts, "r", lettering(), **options) as writing:
        for rows in batches:
            writing.add([reader.row(row) for row in rows])
        return writing.finish()


def of(*columns: Column, **options: Any) -> Outline:
    return Outline("A report", columns, **options)


def cells(path: Path, sheet: int = 0) -> list[tuple[Any, ...]]:
    """The rows of a workbook's sheet below the headings, as Excel has them."""
    book = load_workbook(path)
    try:
        return list(book.worksheets[sheet].iter_rows(min_row=2, values_only=True))
    finally:
        book.close()


def lines(path: Path) -> list[list[str]]:
    """The rows of a CSV below the headings."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def words(path: Path) -> str:
    """What a PDF says, page for page."""
    return "\n".join(page.extract_text() for page in PdfReader(path).pages)


EVERY_TYPE = of(
    TEXT,
    Column("whole", Type.INTEGER),
    Column("exact", Type.DECIMAL),
    AMOUNT,
    Column("number", Type.NUMBER),
    Column("flag", Type.BOOLEAN),
    Column("day", Type.DATE),
    Column("instant", Type.TIMESTAMP),
)
A_ROW = (
    "Zażółć Ελλ 日本 😀",
    -5,
    Decimal("0.1000"),
    Decimal("-1234.50"),
    0.25,
    True,
    date(2026, 7, 31),
    datetime(2026, 3, 29, 1, 30, 5, tzinfo=UTC),
)


def test_every_type_is_written_as_what_it_is(tmp_path: Path) -> None:
    write(tmp_path, EVERY_TYPE, [A_ROW, [None] * 8, A_ROW])
    assert lines(tmp_path / "r.csv")[:2] == [
        ["Zażółć Ελλ 日本 😀", "-5", "0.1000", "-1234.50", "0.25", "true", "2026-07-31", "2026-03-29T01:30:05Z"],
        [""] * 8,
    ]
    instant = datetime(2026, 3, 29, 1, 30, 5)
    assert cells(tmp_path / "r.xlsx")[:2] == [
        (A_ROW[0], -5, 0.1, -1234.5, 0.25, True, datetime(2026, 7, 31), instant),
        (None,) * 8,
    ]
    text = words(tmp_path / "r.pdf")
    for shown in ("Zażółć Ελλ ?? ?", "-5", "0.1000", "-1,234.50", "0.25", "yes", "2026-07-31", "2026-03-29 01:30:05"):
        assert shown in text
    assert "Instant (UTC)" in text


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\tx",
        "\rx",
        "\nx",
        "＝1",
        '=HYPERLINK("http://x")',
        "{=1}",
        "http://x.org",
        "007",
        "<r>a</r>",
    ],
)
def test_no_text_becomes_a_formula_a_link_or_a_number(tmp_path: Path, text: str) -> None:
    write(tmp_path, of(TEXT), [[text]], formats=("csv", "xlsx"))
    [[cell]] = lines(tmp_path / "r.csv")
    assert cell in (text, f"'{text}")
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))
    sheet = load_workbook(tmp_path / "r.xlsx").active
    assert sheet is not None
    found = sheet["A2"]
    assert (found.value, found.data_type, found.hyperlink) == (text.replace("\r", "_x000D_"), "s", None)


@pytest.mark.parametrize(
    "text", ["<&>\"'", "a\x00\x01b", "_x0041_", "\ufffe", "e\u0301 שלום", "  spaces  ", "two\nlines", "," * 5]
)
def test_what_xml_and_csv_use_for_themselves_stays_text(tmp_path: Path, text: str) -> None:
    write(tmp_path, of(TEXT), [[text]])
    assert lines(tmp_path / "r.csv") == [[text]]
    assert len(cells(tmp_path / "r.xlsx")) == 1
    assert words(tmp_path / "r.pdf")


def test_numbers_that_excel_cannot_keep_are_written_as_texts(tmp_path: Path) -> None:
    outline = of(Column("a", Type.INTEGER), Column("b", Type.DECIMAL), Column("c", Type.DATE))
    many = Decimal("123456789012345678901.99")
    write(tmp_path, outline, [(10**15 - 1, Decimal("1.10"), date(1901, 1, 1)), (10**16 + 1, many, date(1850, 1, 1))])
    assert cells(tmp_path / "r.xlsx") == [
        (10**15 - 1, 1.1, datetime(1901, 1, 1)),
        (str(10**16 + 1), str(many), "1850-01-01"),
    ]
    assert lines(tmp_path / "r.csv")[1] == [str(10**16 + 1), str(many), "1850-01-01"]


def test_what_is_absurdly_large_is_written_all_the_same(tmp_path: Path) -> None:
    outline = of(Column("n", Type.DECIMAL, total=True), TEXT, chart=Chart("text", "n"))
    write(tmp_path, outline, [[Decimal(10) ** 5000, "W" * 100_000], [-(10**400), "y" * 100_000]])
    assert len(lines(tmp_path / "r.csv")[0][0]) == 5001
    assert len(cells(tmp_path / "r.xlsx")[0][0]) == 5001
    assert "2 rows" in words(tmp_path / "r.pdf")


@pytest.mark.parametrize(
    "text",
    [
        "x" * 40_000,
        "<r>" + "x" * 40_000 + "</r>",
        "<r><t>" + "x" * 32_753 + "</t></r>, which would be XML once it is cut there",
    ],
    ids=["plain", "rich", "rich-when-cut"],
)
def test_a_text_that_is_too_long_for_a_cell_is_cut_there_and_counted(tmp_path: Path, text: str) -> None:
    written = write(tmp_path, of(TEXT), [[text]], formats=("csv", "xlsx"))
    assert (written.cut, cells(tmp_path / "r.xlsx")) == (1, [(text[:32_767],)])
    assert lines(tmp_path / "r.csv") == [[text]]


def test_characters_that_excel_counts_twice_are_never_cut_in_two(tmp_path: Path) -> None:
    written = write(tmp_path, of(TEXT), [["😀" * 16_383 + "x"], ["😀" * 16_384]], formats=("xlsx",))
    assert (written.cut, cells(tmp_path / "r.xlsx")) == (1, [("😀" * 16_383 + "x",), ("😀" * 16_383,)])


def test_rows_that_a_sheet_does_not_hold_go_on_to_the_next(tmp_path: Path) -> None:
    rows = [[f"row {number}"] for number in range(7)]
    written = write(tmp_path, of(TEXT), rows[:2], rows[2:], formats=("xlsx",), sheet_rows=3)
    assert written.sheets == 3
    book = load_workbook(tmp_path / "r.xlsx")
    assert [sheet.title for sheet in book.worksheets] == ["Table", "Table 2", "Table 3"]
    assert [sheet["A1"].value for sheet in book.worksheets] == ["Text"] * 3
    found = [row for sheet in range(3) for row in cells(tmp_path / "r.xlsx", sheet)]
    assert found == [tuple(row) for row in rows]


def test_a_pdf_shows_the_first_rows_and_says_how_many_it_leaves_out(tmp_path: Path) -> None:
    rows = [[f"row {number}", Decimal(number)] for number in range(1, 1301)]
    written = write(tmp_path, of(TEXT, AMOUNT, pdf_rows=30), rows[:700], rows[700:], formats=("pdf",))
    text = words(tmp_path / "r.pdf")
    assert "row 30\n" in text
    assert "row 31" not in text
    assert "1,300 rows, Amount 845,650.00 in all" in text
    assert "1,270 of 1,300 rows are left out here" in text
    assert (written.rows, written.left_out) == (1300, 1270)


def test_a_chart_of_bars_has_the_largest_sums_and_tells_what_the_others_come_to(tmp_path: Path) -> None:
    rows = [[f"item {number % 12}", Decimal(number)] for number in range(120)]
    write(tmp_path, of(TEXT, AMOUNT, chart=Chart("text", "amount", top=3), pdf_rows=0), rows, formats=("pdf",))
    text = words(tmp_path / "r.pdf")
    assert "Amount by Text: the 3 largest; the 9 others come to 5,220.00" in text
    assert [item for item in ("item 11", "item 10", "item 9") if item in text] == ["item 11", "item 10", "item 9"]
    assert "item 8" not in text


def test_a_chart_as_a_line_puts_days_together_in_their_order(tmp_path: Path) -> None:
    days = [date(2026, month, day) for month in (3, 1, 2) for day in (1, 15)]
    chart = Chart("day", kind=ChartKind.LINE, by=Bucket.MONTH)
    outline = of(Column("day", Type.DATE), chart=chart, pdf_rows=0)
    write(tmp_path, outline, [[day] for day in days], [[None]], formats=("pdf",))
    text = words(tmp_path / "r.pdf")
    assert "Rows by month" in text
    assert text.index("-\n") < text.index("2026-01") < text.index("2026-02") < text.index("2026-03")


@pytest.mark.parametrize("kind", list(ChartKind))
@pytest.mark.parametrize("values", [[], [None], [0], [-5], [5], [10**30, -(10**30)], [1, 2, 3] * 40])
def test_any_values_make_a_chart_or_none(tmp_path: Path, kind: ChartKind, values: list[int | None]) -> None:
    outline = of(TEXT, Column("n", Type.INTEGER, total=True), chart=Chart("text", "n", kind))
    write(tmp_path, outline, [[f"label {at}", value] for at, value in enumerate(values)], formats=("pdf",))
    assert f"{len(values)} row" in words(tmp_path / "r.pdf")


def test_a_chart_with_far_too_many_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TooManyLabels, match="label text has more than 10000 different values"):
        write(tmp_path, of(TEXT, chart=Chart("text")), [[str(number)] for number in range(MAX_LABELS + 1)])
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_never_cut_and_columns_without_room_are_named(tmp_path: Path) -> None:
    columns = [Column(f"n{number}", Type.INTEGER) for number in range(30)]
    write(tmp_path, of(*columns), [[10**11 + number for number in range(30)]], formats=("pdf",))
    text = words(tmp_path / "r.pdf")
    assert "100000000000" in text
    assert "No room on the page for" in text
    assert "N29" in text


def test_headings_are_cut_before_a_column_is_left_out(tmp_path: Path) -> None:
    columns = [Column(f"n{number}", Type.INTEGER, label=f"{number} is a very long heading") for number in range(10)]
    write(tmp_path, of(*columns), [[10**5] * 10], formats=("pdf",))
    text = words(tmp_path / "r.pdf")
    assert "9 is a" in text
    assert "No room" not in text


def test_sums_of_decimals_lose_no_digit(tmp_path: Path) -> None:
    rows: list[list[object]] = [["a", Decimal(10**30)], ["b", Decimal("0.01")], ["c", None]]
    write(tmp_path, of(TEXT, AMOUNT), rows, formats=("pdf",))
    assert f"{10**30:,}.01 in all" in words(tmp_path / "r.pdf")


def test_characters_that_the_font_does_not_have_are_told(tmp_path: Path) -> None:
    assert write(tmp_path, of(TEXT), [["日本 日本"]], formats=("pdf",)).replaced == 2
    assert "2 different characters, which the font does not have" in words(tmp_path / "r.pdf")
    letters = lettering(VERA)
    assert letters.line("Zürich\tЖ") == "Zürich ?"
    assert letters.replaced == {"Ж"}


def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    outline = Outline("A report", EVERY_TYPE.columns, Chart("text", "amount"), note="since 2026-07-01")
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, outline, [A_ROW] * 50)
        found.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert sorted(found[0]) == ["r.csv", "r.pdf", "r.xlsx"]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("column", "given", "read"),
    [
        (TEXT, {"b": [1], "a": None}, '{"a":null,"b":[1]}'),
        (TEXT, b"\x00\xff", "\\x00ff"),
        (TEXT, Decimal("1.50"), "1.50"),
        (Column("x", Type.INTEGER), 5.0, 5),
        (Column("x", Type.INTEGER), "17", 17),
        (Column("x", Type.DECIMAL), 0.1, Decimal("0.1")),
        (Column("x", Type.DECIMAL), "1E+3", Decimal(1000)),
        (Column("x", Type.DECIMAL, places=2), "2.345", Decimal("2.35")),
        (Column("x", Type.DECIMAL, places=2), -2.345, Decimal("-2.35")),
        (Column("x", Type.DECIMAL, places=0), Decimal("1e40"), Decimal(10**40)),
        (Column("x", Type.BOOLEAN), 1, True),
        (Column("x", Type.DATE), "2026-07-31 23:59:59", date(2026, 7, 31)),
        (Column("x", Type.TIMESTAMP), "2026-07-31 10:00:00", datetime(2026, 7, 31, 10, tzinfo=UTC)),
        (Column("x", Type.TIMESTAMP), "2026-07-31T10:00:00.5+02:00", datetime(2026, 7, 31, 8, 0, 0, 500_000, UTC)),
    ],
)
def test_what_a_database_gives_is_read_as_its_column_says(column: Column, given: object, read: object) -> None:
    assert Reader([column], [1]).row([None, given]) == [read]


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        (Type.INTEGER, "many"),
        (Type.INTEGER, 1.5),
        (Type.INTEGER, Decimal("1e5000")),
        (Type.DECIMAL, "NaN"),
        (Type.DECIMAL, "1e99999"),
        (Type.NUMBER, float("inf")),
        (Type.BOOLEAN, 2),
        (Type.DATE, 20260731),
        (Type.DATE, "31.07.2026"),
        (Type.TIMESTAMP, 1785000000),
    ],
)
def test_what_a_column_cannot_be_is_told_with_its_value(type_: Type, given: object) -> None:
    with pytest.raises(Unfit, match=f"^x is .*, not an? {type_}$"):
        Reader([Column("ok"), Column("x", type_)], [0, 1]).row(["fine", given])


def test_nothing_is_seen_before_all_of_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("before")
    with Drafts(tmp_path, "r") as drafts, Writing(of(TEXT), ALL, drafts, "r", lettering()) as writing:
        writing.add([["after"]])
        assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["r.csv"]
        assert (tmp_path / "r.csv").read_text() == "before"
        writing.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.pdf", "r.xlsx"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


@pytest.mark.parametrize("format_", ALL)
def test_a_full_disk_fails_the_attempt_and_leaves_what_was_there(tmp_path: Path, format_: str) -> None:
    (tmp_path / f"r.{format_}").write_text("before")
    rows = [[f"{number:0200}"] for number in range(1000)]
    with disk_of(20_000), pytest.raises(OSError, match="File too large"):
        write(tmp_path, of(TEXT, pdf_rows=1000), *[rows] * 5, formats=(format_,))
    assert [path.name for path in tmp_path.iterdir()] == [f"r.{format_}"]
    assert (tmp_path / f"r.{format_}").read_text() == "before"


def test_what_a_killed_run_has_left_goes_with_the_next_and_nothing_else_does(tmp_path: Path) -> None:
    left = Drafts(tmp_path, "r").__enter__()
    others = Drafts(tmp_path, "r.5").__enter__()
    for drafts in (left, others):
        drafts.path("x.csv").write_text("half")
    write(tmp_path, of(TEXT), [["whole"]], formats=("csv",))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([others.scratch.name, "r.csv"])
    others.__exit__()
