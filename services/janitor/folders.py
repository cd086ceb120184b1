"""Folders whose files expire: nothing outside of them is touched, and no symbolic link is followed or removed."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from itertools import islice

from services.janitor.ports import COUNTED, Problem
from services.janitor.rules import FolderRule

_log = logging.getLogger("services.janitor")


class Folder:
    """The files of *rule*. One object walks through the folder once: it is made anew for every run."""

    def __init__(self, rule: FolderRule) -> None:
        self._rule = rule
        # That the folder itself may be reached by a link is the rule's say; what is in it is not.
        self._root = rule.path.resolve()
        self._walk: Iterator[None] | None = None

    @property
    def keep(self) -> timedelta:
        """See ``Expiring.keep``."""
        return self._rule.keep

    async def present(self) -> bool:
        """See ``Expiring.present``."""
        return await asyncio.to_thread(self._root.is_dir)

    async def delete(self, before: datetime, limit: int) -> int:
        """See ``Expiring.delete``. Folders in it that have been empty for as long as files are kept go as well."""
        if self._walk is None:
            self._walk = self._deleted(before.timestamp())
        return await asyncio.to_thread(self._advance, self._walk, limit)

    async def count(self, before: datetime) -> int:
        """See ``Expiring.count``."""
        return await asyncio.to_thread(self._advance, self._expired(before.timestamp()), COUNTED)

    def _advance(self, walk: Iterator[object], limit: int) -> int:
        try:
            return sum(1 for _ in islice(walk, limit))
        except OSError as error:
            raise Problem(f"folder {self._rule.name}: {error}") from error

    def _deleted(self, before: float) -> Iterator[None]:
        """Delete a file at a time."""
        for folder, name in self._expired(before, and_folders=True):
            # Somebody else may have removed it, or put it there anew, this very moment: the name is all that goes.
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
                yield

    def _expired(self, before: float, *, and_folders: bool = False) -> Iterator[tuple[int, str]]:
        """Each expired file by its open folder and its name there; *and_folders*: remove old empty ones on the way."""
        for _, folders, names, folder in os.fwalk(self._root, topdown=False, onerror=self._unreadable):
            for name in names:
                if self._is_meant(name) and _is_old(name, folder, before, stat.S_ISREG):
                    yield folder, name
            for name in folders if and_folders else ():
                if _is_old(name, folder, before, stat.S_ISDIR):
                    with suppress(OSError):  # it is not empty
                        os.rmdir(name, dir_fd=folder)

    def _unreadable(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # removed by somebody else
            _log.warning("cannot look into a part of folder %s: %s", self._rule.name, error)

    def _is_meant(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._rule.files)


def _is_old(name: str, folder: int, before: float, is_such: Callable[[int], bool]) -> bool:
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return is_such(status.st_mode) and status.st_mtime < before
