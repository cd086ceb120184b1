"""What the jobs of a run really did: mails in the sink's book, reports on the disk, receipts of what was published."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any  # JSON values

import orjson

_ID = 36  # the length of a job id, with which a report's name ends


class Book:
    """The entries of *run* in a file of JSON lines that grows; each look reads on where the last one ended."""

    def __init__(self, path: Path, run: str) -> None:
        self._path = path
        self._run = run
        self._read = 0
        self._ids: list[str] = []

    def ids(self) -> list[str]:
        """The job ids of all entries so far, as often as each was written."""
        self._ids += [entry["id"] for entry in self._fresh() if entry["run"] == self._run]
        return self._ids

    def _fresh(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition(b"\n")
        self._read += len(whole) + len(end)
        return [orjson.loads(line) for line in whole.splitlines()]


def recorded(store: Path) -> set[str]:
    """The job ids in the audit's table."""
    with closing(sqlite3.connect(f"{store.as_uri()}?mode=ro", uri=True)) as file:
        return {job_id for (job_id,) in file.execute("SELECT job_id FROM audit_jobs")}


def reports(folder: Path) -> list[str]:
    """The job ids of the reports in *folder* that are complete: both files are there and the PDF has its end."""
    return [path.stem[-_ID:] for path in sorted(folder.glob("*.pdf")) if _is_whole(path)]


def _is_whole(path: Path) -> bool:
    return path.with_suffix(".csv").exists() and path.read_bytes().rstrip().endswith(b"%%EOF")
