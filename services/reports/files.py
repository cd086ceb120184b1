"""The files of one report: written below one folder and nowhere else, and seen whole and together or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Self

from penstock.service_files import Outside

#: How the names of drafts end; the janitor's rules know it.
_SUFFIX = ".part"


def folder_in(root: Path, name: str) -> Path:
    """The folder *name* in *root*, made when missing. Raises ``Outside``, also for a symbolic link that leads away."""
    base = root.resolve()
    folder = (base / name).resolve()
    if not folder.is_relative_to(base):
        raise Outside(f"{name} is not in the output folder")
    folder.mkdir(parents=True, exist_ok=True)
    _sync(base)
    return folder


class Drafts:
    """Files of one report that nobody sees before all of them are complete: they are written in a hidden folder beside
    the places to which they go.

    *stem*: how the names of this report's drafts begin, and of nobody else's. What a run of it that was killed has left
    is removed at the start. Without ``publish`` nothing is left at the end.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._folder = folder
        self._prefix = f".{stem}."
        self._names: list[str] = []
        self._drafts: Path

    def __enter__(self) -> Self:
        left_over = re.compile(rf"{re.escape(self._prefix)}[a-z0-9_]{{8}}{_SUFFIX}")  # as mkdtemp makes them
        for name in [entry.name for entry in self._folder.iterdir() if left_over.fullmatch(entry.name)]:
            shutil.rmtree(self._folder / name, ignore_errors=True)
        self._drafts = Path(tempfile.mkdtemp(prefix=self._prefix, suffix=_SUFFIX, dir=self._folder))
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._drafts, ignore_errors=True)

    @property
    def scratch(self) -> Path:
        """A folder for whatever else is written on the way, on the same disk; it goes with the drafts."""
        return self._drafts

    def path(self, name: str) -> Path:
        """Where to write the file that is to be *name*."""
        self._names.append(name)
        return self._path_of(name)

    def publish(self) -> list[str]:
        """Put every file into its place, in the order in which they were asked for, and return their names.

        Whoever looks, even after a power cut, sees all of a file or what was there before.
        """
        for name in self._names:
            self._path_of(name).chmod(0o644)
            _sync(self._path_of(name))
        for name in self._names:
            self._path_of(name).replace(self._folder / name)
        _sync(self._folder)
        return list(self._names)

    def _path_of(self, name: str) -> Path:
        return self._drafts / f".{name}{_SUFFIX}"


def _sync(path: Path) -> None:
    """Make a file, or the names in a folder, outlive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
