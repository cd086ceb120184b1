"""Reports: kind ``report.sales`` on orders, kind ``report.table`` on what is in a database."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from penstock import JobKind
from penstock_jobs.names import Name

#: A region as it is written in file names and headings.
Region = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]

#: The name of a report that the worker's operator has defined.
ReportName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]

#: The name of one of its parameters.
ParameterName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]

#: The value of a parameter: a date is text such as ``2026-07-31``, a decimal may be, so that no digit is lost.
ParameterValue = Annotated[str, StringConstraints(max_length=1000)] | bool | int | float | None

Format = Literal["csv", "xlsx", "pdf"]


class SalesReport(BaseModel):
    """One region's sales as PDF and CSV.

    The orders are not in the message but in a CSV file that producer and worker share: *source* in *folder* below the
    worker's source directory. The report appears in a folder of the same name below its output directory.
    """

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={"examples": [{"region": "north", "folder": "2026-07", "source": "north.csv"}]},
    )

    region: Region
    folder: Name
    source: Name


class TableReport(BaseModel):
    """A report that the worker's operator has defined, as a file in each of *formats*.

    The message names it and gives its parameters; what is asked of which database is the definition's alone. The files
    appear in a folder of the report's name below the worker's output directory.
    """

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {"report": "credit-balances"},
                {
                    "report": "credit-ledger",
                    "parameters": {"since": "2026-07-01", "until": "2026-08-01"},
                    "formats": ["csv", "xlsx", "pdf"],
                },
            ]
        },
    )

    report: ReportName
    parameters: Annotated[dict[ParameterName, ParameterValue], Field(max_length=50)] = {}
    formats: Annotated[tuple[Format, ...], Field(min_length=1, max_length=3)] = ("csv", "pdf")


SALES_REPORT = JobKind("report.sales", SalesReport)
TABLE_REPORT = JobKind("report.table", TableReport)
