"""Submitting orders: stable ids, bounded chunks, region files that are whole or not there, refusals told."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any  # jobs of several kinds

import pytest

from penstock import ConnectionLost, NewJob, PenstockError, Receipt, Unroutable
from penstock_jobs import SALES_REPORT, SEND_EMAIL
from services.orders.model import Order
from services.orders.reading import BadRow, Row
from services.orders.regions import MAX_REGIONS, collecting
from services.orders.submitting import CHUNK, Listeners, Submission


class Shelf:
    """Takes jobs and keeps them; *refuses* names ids and the error each is answered with."""

    def __init__(self, refuses: dict[str, PenstockError] | None = None) -> None:
        self.batches: list[list[NewJob[Any]]] = []
        self._refuses = refuses or {}

    def take(self, jobs: Sequence[NewJob[Any]]) -> list[Receipt | PenstockError]:
        self.batches.append(list(jobs))
        return [self._refuses.get(str(job.id)) or Receipt(str(job.id), job.kind.name) for job in jobs]

    @property
    def jobs(self) -> list[NewJob[Any]]:
        return [job for batch in self.batches for job in batch]


class Heard:
    def __init__(self) -> None:
        self.confirmed: list[str] = []
        self.problems: list[str] = []

    @property
    def listeners(self) -> Listeners:
        return Listeners(lambda receipt, _: self.confirmed.append(receipt.id), self.problems.append, lambda _: None)


def an_order(number: int, region: str = "north") -> Order:
    return Order(
        order_id=f"A-{number}",
        name="Ada",
        email="ada@example.org",
        region=region,
        item="teapot",
        quantity=2,
        amount=Decimal("49.80"),
    )


def some_rows(count: int, regions: Sequence[str] = ("north", "south")) -> list[Row | BadRow]:
    return [Row(n + 2, an_order(n, regions[n % len(regions)])) for n in range(count)]


def submitted(folder: Path, rows: Iterable[Row | BadRow], shelf: Shelf, heard: Heard | None = None) -> Submission:
    with collecting(folder) as regions:
        submission = Submission(shelf, regions, folder.name, (heard or Heard()).listeners)
        submission.submit(rows)
    return submission


def test_each_order_is_a_mail_and_each_region_a_report(tmp_path: Path) -> None:
    shelf = Shelf()
    tally = submitted(tmp_path / "run", some_rows(5), shelf).tally
    kinds = [job.kind for job in shelf.jobs]
    assert kinds == [SEND_EMAIL] * 5 + [SALES_REPORT] * 2
    assert (tally.mails, tally.reports, tally.line) == (5, 2, 6)


def test_the_same_orders_have_the_same_ids_again_and_another_run_has_others(tmp_path: Path) -> None:
    shelves = [Shelf(), Shelf(), Shelf()]
    for shelf, run in zip(shelves, ("run", "run", "other"), strict=True):
        submitted(tmp_path / run, some_rows(4), shelf)
    first, again, other = ({job.id for job in shelf.jobs} for shelf in shelves)
    assert first == again
    assert len(first) == 6
    assert not first & other


def test_other_orders_of_a_region_are_another_report_with_a_file_of_its_own(tmp_path: Path) -> None:
    shelf = Shelf()
    submitted(tmp_path / "run", some_rows(1, ["north"]), shelf)
    submitted(tmp_path / "run", some_rows(2, ["north"]), shelf)
    reports = [job for job in shelf.jobs if job.kind is SALES_REPORT]
    assert len({job.id for job in reports}) == 2
    assert {job.args.source for job in reports} == {path.name for path in (tmp_path / "run").iterdir()}


def test_a_regions_file_holds_its_orders_before_its_report_is_published(tmp_path: Path) -> None:
    class Looks(Shelf):
        def take(self, jobs: Sequence[NewJob[Any]]) -> list[Receipt | PenstockError]:
            self.found = [(tmp_path / "run" / job.args.source).exists() for job in jobs if job.kind is SALES_REPORT]
            return super().take(jobs)

    shelf = Looks()
    submitted(tmp_path / "run", some_rows(3), shelf)
    assert shelf.found == [True, True]
    north, south = sorted((tmp_path / "run").iterdir())
    assert _ids(north) == ["A-0", "A-2"]
    assert _ids(south) == ["A-1"]


def test_rows_are_read_a_chunk_at_a_time(tmp_path: Path) -> None:
    read: list[Row | BadRow] = []
    read_before_publish: list[int] = []

    class Counts(Shelf):
        def take(self, jobs: Sequence[NewJob[Any]]) -> list[Receipt | PenstockError]:
            read_before_publish.append(len(read))
            return super().take(jobs)

    def rows() -> Iterator[Row | BadRow]:
        for row in some_rows(CHUNK * 2 + 1):
            read.append(row)
            yield row

    submitted(tmp_path / "run", rows(), Counts())
    assert read_before_publish == [CHUNK, CHUNK * 2, CHUNK * 2 + 1, CHUNK * 2 + 1]


def test_bad_rows_are_told_and_passed_over(tmp_path: Path) -> None:
    heard = Heard()
    rows = [*some_rows(1), BadRow(3, "quantity: not a number"), Row(4, an_order(9))]
    tally = submitted(tmp_path / "run", rows, Shelf(), heard).tally
    assert heard.problems == ["line 3: quantity: not a number"]
    assert (tally.mails, tally.bad) == (2, 1)


def test_a_column_of_free_text_cannot_open_a_file_for_every_row(tmp_path: Path) -> None:
    heard = Heard()
    rows = some_rows(MAX_REGIONS + 3, [f"r{n}" for n in range(MAX_REGIONS + 3)])
    submission = submitted(tmp_path / "run", rows, Shelf(), heard)
    assert submission.tally.reports == MAX_REGIONS
    assert submission.tally.bad == len(heard.problems) == 3


def test_a_job_the_broker_refuses_is_told_and_the_others_count(tmp_path: Path) -> None:
    first = Shelf()
    submitted(tmp_path / "run", some_rows(3), first)
    shelf, heard = Shelf({str(first.jobs[1].id): Unroutable("no queue is bound to email.send")}), Heard()
    tally = submitted(tmp_path / "run", some_rows(3), shelf, heard).tally
    assert (tally.mails, tally.reports, tally.refused) == (2, 2, 1)
    assert "no queue is bound to email.send" in heard.problems[0]
    assert first.jobs[1].id not in heard.confirmed


def test_a_lost_broker_ends_the_submission_and_leaves_no_draft(tmp_path: Path) -> None:
    class Breaks(Shelf):
        def take(self, jobs: Sequence[NewJob[Any]]) -> list[Receipt | PenstockError]:
            if self.batches:
                raise ConnectionLost("gone")
            return super().take(jobs)

    shelf, heard = Breaks(), Heard()
    with pytest.raises(ConnectionLost):
        submitted(tmp_path / "run", some_rows(CHUNK + 1), shelf, heard)
    assert len(heard.confirmed) == CHUNK
    assert list((tmp_path / "run").iterdir()) == []


def _ids(path: Path) -> list[str]:
    return [row["order_id"] for row in csv.DictReader(path.read_text().splitlines())]
