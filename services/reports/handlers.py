"""The jobs of the reports service."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from penstock import Job, Reject
from penstock_jobs.reports import SalesReport
from services.reports.files import Outside, source_in, target_in, write_whole
from services.reports.pdf import pdf_of
from services.reports.sales import BadSource, add_up
from services.reports.tables import csv_of


class Reports:
    """Makes reports from files below *sources* into files below *outputs*. Holds no state; safe to share by threads."""

    def __init__(self, sources: Path, outputs: Path) -> None:
        self._sources = sources
        self._outputs = outputs

    def sales_report(self, job: Job[SalesReport]) -> list[str]:
        """Write the report's CSV and then its PDF, and return their names.

        The names hold the job id: a second run writes the same bytes to the same files. A source that is not there
        (yet) is tried again; one that cannot be a list of orders rejects the job.
        """
        args = job.args
        stem = f"{args.region}-{_word(job.id)}"
        try:
            source = source_in(self._sources, args.folder, args.source)
            with source.open(encoding="utf-8", newline="") as lines:
                sales = add_up(args.region, lines)
            files = {f"{stem}.csv": csv_of(sales), f"{stem}.pdf": pdf_of(sales)}
            for name, data in files.items():
                write_whole(target_in(self._outputs, args.folder, name), data)
        except (BadSource, Outside) as error:
            raise Reject(str(error)) from error
        return list(files)


def _word(job_id: str) -> str:
    """*job_id* as part of a file name: ids from foreign producers may hold anything."""
    return quote(job_id, safe="", errors="replace")[:100]
