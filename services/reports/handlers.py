"""The jobs of the reports service."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any  # results are JSON

from penstock import Job, Reject
from penstock.printable import printable
from penstock.service_files import Outside, source_in, word_of
from penstock.topology.form import near_or_all
from penstock_jobs.reports import SalesReport, TableReport
from services.reports.definitions import Definition
from services.reports.files import Drafts, folder_in
from services.reports.fonts import lettering
from services.reports.outline import Outline, Row
from services.reports.parameters import BadArguments
from services.reports.ports import Database, Found, Refused
from services.reports.sales import BadSource, Sales, add_up
from services.reports.tally import TooManyLabels
from services.reports.values import Reader, Unfit
from services.reports.writing import Writing, Written

_log = logging.getLogger("services.reports")

#: The largest source that is read (bytes).
MAX_SOURCE = 64 * 1024 * 1024


class TooManyRows(Exception):
    """A query gives more rows than a report may have; the text says how many that is."""


#: What somebody has to change before a report can be made.
_HOPELESS = (BadArguments, BadSource, Outside, Refused, TooManyLabels, TooManyRows, Unfit)


class Reports:
    """Makes reports below *outputs*: from files below *sources*, and by *definitions* from *databases*.

    *max_rows*: no report may have more. *font*: see ``lettering``. Holds no state; safe to share by threads.
    """

    def __init__(
        self,
        sources: Path,
        outputs: Path,
        definitions: Mapping[str, Definition],
        databases: Mapping[str, Database],
        *,
        max_rows: int,
        font: Path | None = None,
    ) -> None:
        self._sources = sources
        self._outputs = outputs
        self._definitions = definitions
        self._databases = databases
        self._max_rows = max_rows
        self._font = font

    def sales_report(self, job: Job[SalesReport]) -> list[str]:
        """Write the report's CSV and PDF, and return their names.

        The names hold the job id: a second run writes the same bytes to the same files. A source that is not there
        (yet) is tried again; one that cannot be a list of orders rejects the job.
        """
        args = job.args
        try:
            with source_in(self._sources, args.folder, args.source) as source:
                sales = _added_up(args, source)
            found = Found([column.name for column in sales.outline.columns], iter([sales.rows]))
            written = self._write(job.id, args.folder, args.region, sales.outline, ("csv", "pdf"), nullcontext(found))
        except _HOPELESS as error:
            raise Reject(f"{args.folder}/{args.source}: {error}") from error
        return [file.partition("/")[2] for file in written.files]

    def table_report(self, job: Job[TableReport]) -> dict[str, Any]:
        """Ask the database of a defined report and write its files; what became of them.

        What the message or the definition is to blame for rejects the job; a database that is away or too slow, and a
        disk that is full, are tried again.
        """
        name = job.args.report
        definition = self._definitions.get(name)
        if definition is None:
            raise Reject(f"there is no report {name} in REPORTS_DEFINITIONS{near_or_all(name, self._definitions)}")
        try:
            return asdict(self._table(job, definition))
        except _HOPELESS as error:
            raise Reject(f"report {name}: {printable(str(error))}") from error

    def _table(self, job: Job[TableReport], definition: Definition) -> Written:
        arguments = definition.arguments(job.args.parameters, _published(job))
        database = self._databases.get(definition.database)
        if database is None:
            raise Refused(f"REPORTS_DATABASES does not say where database {definition.database} is")
        outline = replace(definition.outline, note=definition.note(arguments))
        answer = database.reading(definition.statement, definition.types, arguments)
        return self._write(job.id, definition.name, definition.name, outline, job.args.formats, answer)

    def _write(
        self,
        job_id: str,
        folder: str,
        name: str,
        outline: Outline,
        formats: Collection[str],
        answer: AbstractContextManager[Found],
    ) -> Written:
        """Write what is *found*; the database is left before the files are completed, which takes its time, too."""
        place, stem, letters = folder_in(self._outputs, folder), f"{name}-{word_of(job_id)}", lettering(self._font)
        with Drafts(place, stem) as drafts, Writing(outline, formats, drafts, stem, letters) as writing:
            with answer as found:
                reader = Reader(outline.columns, positions(outline, found.columns))
                for batch in found.batches:
                    writing.add(_read(reader, batch, writing.rows))
                    if writing.rows > self._max_rows:
                        raise TooManyRows(f"it has more than {self._max_rows:,} rows: REPORTS_MAX_ROWS")
            written = writing.finish()
        _log.info("%s: %d rows in %s", name, written.rows, ", ".join(written.files))
        return replace(written, files=[f"{folder}/{file}" for file in written.files])


def _added_up(args: SalesReport, source: int) -> Sales:
    if os.fstat(source).st_size > MAX_SOURCE:
        raise BadSource(f"it is larger than {MAX_SOURCE} bytes")
    with os.fdopen(os.dup(source), encoding="utf-8", newline="") as lines:
        return add_up(args.region, lines)


def _published(job: Job[TableReport]) -> datetime:
    """When *job* was first published; now, where nobody said so or it cannot be."""
    now = datetime.now(UTC).timestamp()
    return datetime.fromtimestamp(now if job.published is None else min(job.published / 1000, now), UTC)


def positions(outline: Outline, found: Sequence[str]) -> list[int]:
    """Where each column of *outline* stands in what was *found*. Raises ``Refused``."""
    wanted = [column.name for column in outline.columns]
    if sorted(wanted) != sorted(found):
        raise Refused(f"the query gives the columns {', '.join(found)}; defined are {', '.join(wanted)}")
    return [found.index(name) for name in wanted]


def _read(reader: Reader, batch: Sequence[Sequence[Any]], before: int) -> list[Row]:
    """The rows of *batch*, to which *before* came. Raises ``Unfit`` with the number of the row."""
    rows: list[Row] = []
    try:
        for raw in batch:
            rows.append(reader.row(raw))
    except Unfit as error:
        raise Unfit(f"row {before + len(rows) + 1}: {error}") from None
    return rows
