"""Submitting orders: a bounded chunk at a time to the broker, bad rows told and passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any  # a chunk holds jobs of several kinds

from penstock import NewJob, PenstockError, Receipt
from penstock_jobs import SEND_EMAIL
from services.orders.jobs import confirmation, report
from services.orders.ports import Taker
from services.orders.reading import BadRow, Row
from services.orders.regions import MAX_REGIONS, RegionFiles

#: Jobs handed to the publisher at a time: all are confirmed before the next rows are read.
CHUNK = 500


@dataclass(slots=True)
class Tally:
    """What became of a submission so far; *line* is the last one read."""

    mails: int = 0
    reports: int = 0
    bad: int = 0
    refused: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Listeners:
    """Who hears of it: each confirmed job with its run, each problem in words, and the tally after every chunk."""

    confirmed: Callable[[Receipt, str], None]
    problem: Callable[[str], None]
    progress: Callable[[Tally], None]


class Submission:
    """Sends the jobs of one run of orders through *taker*; *tally* is right at any time, also after an error."""

    def __init__(self, taker: Taker, regions: RegionFiles, run: str, listeners: Listeners) -> None:
        self.tally = Tally()
        self._taker = taker
        self._regions = regions
        self._run = run
        self._tell = listeners

    def submit(self, rows: Iterable[Row | BadRow]) -> None:
        """Publish a mail for every order in *rows* and then a report for every region they named.

        A job that the broker refuses for itself is told and counted, and the next goes on. Raises ``BrokerError`` when
        the broker is gone or refuses us: submit the same orders again then, the ids are the same.
        """
        mails = (confirmation(row.order, self._run) for row in self._good(rows))
        while chunk := list(islice(mails, CHUNK)):
            self._publish(chunk)
        self._publish([report(region, self._run) for region in self._regions.finish()])

    def _good(self, rows: Iterable[Row | BadRow]) -> Iterator[Row]:
        for row in rows:
            self.tally.line = row.line
            if isinstance(row, BadRow):
                self._bad(row.line, row.problem)
            elif not self._regions.has_room_for(row.order.region):
                self._bad(row.line, f"region: more than {MAX_REGIONS} different regions")
            else:
                self._regions.add(row.order)
                yield row

    def _bad(self, line: int, problem: str) -> None:
        self.tally.bad += 1
        self._tell.problem(f"line {line}: {problem}")

    def _publish(self, jobs: Sequence[NewJob[Any]]) -> None:
        for job, answer in zip(jobs, self._taker.take(jobs), strict=True):
            if isinstance(answer, Receipt):
                self._confirm(answer)
            else:
                self._refuse(job, answer)
        self._tell.progress(self.tally)

    def _confirm(self, receipt: Receipt) -> None:
        if receipt.kind == SEND_EMAIL.name:
            self.tally.mails += 1
        else:
            self.tally.reports += 1
        self._tell.confirmed(receipt, self._run)

    def _refuse(self, job: NewJob[Any], failure: PenstockError) -> None:
        self.tally.refused += 1
        self._tell.problem(f"{job.kind.name} {job.id} was not published: {failure}")
