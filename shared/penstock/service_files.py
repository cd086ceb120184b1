"""A service's files below one folder and nowhere else: read as they were found, and seen whole or not at all.

Every step from the folder down is opened from the one before, and no symbolic link is followed: whoever may write into
the folder cannot turn a name round between the look at it and its use.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from urllib.parse import quote

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DRAFT = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

#: What opening a name says when it is a link, a file where a folder should be, or a socket.
_NOT_SUCH = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)

#: Characters of a job's id in a file's name; ids are shorter, but for some of foreign producers.
_LONGEST = 75


class Outside(Exception):
    """A name leads out of its folder, or to something that is no file."""


class Busy(Exception):
    """Somebody else is writing this very file now."""


def word_of(job_id: str) -> str:
    """*job_id* as part of a file's name, and of no other's: ids from foreign producers may hold anything."""
    word = quote(job_id, safe="", errors="replace")
    if len(word) <= _LONGEST:
        return word
    return f"{word[:_LONGEST]}-{blake2b(job_id.encode(errors='replace'), digest_size=10).hexdigest()}"


@contextmanager
def source_in(root: Path, folder: str, name: str) -> Iterator[int]:
    """A descriptor to read the file *name* in *folder* below *root* by, for the block.

    Raises ``Outside``, also for a symbolic link and what is no regular file, and ``FileNotFoundError`` when it is not
    there (yet).
    """
    with _opened(root, folder) as parent:
        # A pipe would let whoever opens it wait for its other end.
        source = _open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, parent)
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise Outside(f"{name} is no regular file")
        yield source
    finally:
        os.close(source)


@contextmanager
def whole_file(root: Path, folder: str, name: str) -> Iterator[int]:
    """A descriptor to write *name* in *folder* below *root* by, which is there once the block has ended well.

    Whoever looks, even after a power cut, sees all of it or what was there before. The folder is made when missing.
    What a writer that was killed has left of the file is written over. Raises ``Outside``, and ``Busy`` while another
    process writes the same one.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _opened(root, folder, make=True) as parent:
        draft = f".{_plain(name)}.part"
        handle = _locked(draft, parent)
        try:
            os.ftruncate(handle, 0)
            yield handle
            os.fchmod(handle, 0o644)
            os.fsync(handle)
            os.rename(draft, name, src_dir_fd=parent, dst_dir_fd=parent)
            os.fsync(parent)
        except BaseException:
            with suppress(FileNotFoundError):  # it is in its place already
                os.unlink(draft, dir_fd=parent)
            raise
        finally:
            os.close(handle)


@contextmanager
def _opened(root: Path, folder: str, *, make: bool = False) -> Iterator[int]:
    # That the root is reached by a link is its owner's business.
    base = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(_plain(folder), 0o755, dir_fd=base)
                os.fsync(base)
        parent = _open(folder, _FOLDER, base)
    finally:
        os.close(base)
    try:
        yield parent
    finally:
        os.close(parent)


def _locked(draft: str, parent: int) -> int:
    """The descriptor of the draft, which is this process's alone until that is closed or the process ends."""
    while True:
        handle, ours = _open(draft, _DRAFT, parent), False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who held it before may have put it into its place meanwhile: then it is no draft any more.
            ours = _is_at(handle, draft, parent)
        except BlockingIOError:
            raise Busy("another run of this job is writing the same file") from None
        finally:
            if not ours:
                os.close(handle)
        if ours:
            return handle


def _is_at(handle: int, name: str, parent: int) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(name, dir_fd=parent, follow_symlinks=False))
    return False


def _open(name: str, flags: int, parent: int) -> int:
    try:
        return os.open(_plain(name), flags, 0o600, dir_fd=parent)
    except OSError as error:
        if error.errno in _NOT_SUCH:
            raise Outside(f"{name} is a link, or no file or folder as it should be") from error
        raise


def _plain(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise Outside(f"{name!r} is not a plain name")
    return name
