"""The orders of each region as CSV files in the folder that producers share with the reports service."""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from services.orders.model import COLUMNS, Order

#: How many regions one submission may have; a column of free text would open a file for every line.
MAX_REGIONS = 200


@dataclass(frozen=True, slots=True)
class RegionFile:
    """A finished file. Its *name* holds a digest of its content, so that no submission overwrites another's."""

    region: str
    folder: str
    name: str


class RegionFiles:
    """Collects orders by region while they are read; nothing is visible under its name before ``finish``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._drafts: dict[str, _Draft] = {}

    def has_room_for(self, region: str) -> bool:
        """Whether an order of *region* can be taken."""
        return region in self._drafts or len(self._drafts) < MAX_REGIONS

    def add(self, order: Order) -> None:
        """Write *order* down in its region's draft."""
        if order.region not in self._drafts:
            self._drafts[order.region] = _Draft(self._folder)
        self._drafts[order.region].add(order)

    def finish(self) -> list[RegionFile]:
        """Put every draft on disk under its name, at once or not at all, and return them by region."""
        found = [RegionFile(region, self._folder.name, draft.finish(region)) for region, draft in self._in_order()]
        _sync(self._folder)
        return found

    def discard(self) -> None:
        """Close and remove what was not finished. Idempotent."""
        for draft in self._drafts.values():
            draft.discard()

    def _in_order(self) -> list[tuple[str, _Draft]]:
        return sorted(self._drafts.items())


@contextmanager
def collecting(folder: Path) -> Iterator[RegionFiles]:
    """Collect region files in *folder*, which is made when missing; drafts never outlive the block."""
    folder.mkdir(parents=True, exist_ok=True)
    files = RegionFiles(folder)
    try:
        yield files
    finally:
        files.discard()


class _Draft:
    def __init__(self, folder: Path) -> None:
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
        self._path = Path(name)
        self._file: IO[str] = os.fdopen(handle, "w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(COLUMNS)

    def add(self, order: Order) -> None:
        self._rows.writerow([getattr(order, column) for column in COLUMNS])

    def finish(self, region: str) -> str:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"{region}-{digest[:12]}.csv"
        self._path.chmod(0o644)
        self._path.rename(self._path.with_name(name))
        return name

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the renames outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
