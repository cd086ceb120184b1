"""Reports on orders: kind ``report.sales``."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints

from penstock import JobKind

#: The name of one file or folder: it cannot climb, be hidden or hold a separator.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]

#: A region as it is written in file names and headings.
Region = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,39}$")]


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


SALES_REPORT = JobKind("report.sales", SalesReport)
