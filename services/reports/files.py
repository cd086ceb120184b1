"""Files below one folder and nowhere else: read with a size limit, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

#: The largest source that is read (bytes).
MAX_SOURCE = 64 * 1024 * 1024


class Outside(Exception):
    """A name leads out of its folder, or to something that is no file."""


def source_in(root: Path, folder: str, name: str) -> Path:
    """The file *name* in *folder* below *root*.

    Raises ``Outside``, also for a symbolic link that leads away and a file that is too large, and ``FileNotFoundError``
    when it is not there (yet).
    """
    base = root.resolve()
    path = (base / folder / name).resolve(strict=True)
    if not path.is_relative_to(base) or not path.is_file():
        raise Outside(f"{folder}/{name} is not a file in the source folder")
    if path.stat().st_size > MAX_SOURCE:
        raise Outside(f"{folder}/{name} is larger than {MAX_SOURCE} bytes")
    return path


def target_in(root: Path, folder: str, name: str) -> Path:
    """Where to write *name* in *folder* below *root*; the folder is made when missing. Raises ``Outside``."""
    base = root.resolve()
    parent = (base / folder).resolve()
    if not parent.is_relative_to(base) or Path(name).name != name:
        raise Outside(f"{folder}/{name} is not in the output folder")
    parent.mkdir(parents=True, exist_ok=True)
    return parent / name


def write_whole(path: Path, data: bytes) -> None:
    """Write *data* to *path*: whoever looks, even after a power cut, sees all of it or what was there before."""
    handle, draft = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make a rename outlive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
