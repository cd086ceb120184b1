"""Files that go with mails: read from below one folder and from nowhere else, as large as they may be and no larger."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from mimetypes import MimeTypes
from pathlib import Path

from penstock_jobs.email import Attachment
from services.mailer.ports import File, Missing, Unusable

#: What is not told apart, and what no reader could open if it were called what it is.
_PLAIN = "application/octet-stream"
_PACKED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_OFFICE = "application/vnd.openxmlformats-officedocument"
_MORE = {
    ".docx": f"{_OFFICE}.wordprocessingml.document",
    ".ics": "text/calendar",
    ".md": "text/markdown",
    ".webp": "image/webp",
    ".xlsx": f"{_OFFICE}.spreadsheetml.sheet",
}

#: No symbolic link is followed, at no place of the way; a pipe is not waited for.
_WAY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ELSEWHERE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.ENXIO})


class Attachments:
    """See ``Files``; those below *root*, at most *most* bytes for one mail. Safe to share by threads."""

    def __init__(self, root: Path, most: int) -> None:
        self._root = root
        self._most = most
        self._types = MimeTypes(filenames=())  # not those of the machine: everywhere the same
        for ending, content_type in _MORE.items():
            self._types.add_type(content_type, ending)

    def read(self, wanted: Sequence[Attachment]) -> list[File]:
        """See ``Files.read``."""
        found: list[File] = []
        for each in wanted:
            content = self._content(each, self._most - sum(len(file.content) for file in found))
            found.append(File(each.name or each.file, self._type(each.file), content))
        return found

    def _content(self, wanted: Attachment, most: int) -> bytes:
        where = f"attachment {wanted.folder}/{wanted.file}"
        try:
            with _opened(self._root, wanted.folder, wanted.file) as handle:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise Unusable(f"{where} is no file")
                content = _read(handle, most + 1)
        except FileNotFoundError as error:
            raise Missing(f"{where} is not there") from error
        except OSError as error:
            if error.errno in _ELSEWHERE:
                raise Unusable(f"{where} leads elsewhere: it is no file, or a link") from error
            raise Missing(f"{where} cannot be read: {os.strerror(error.errno or 0)}") from error
        if len(content) > most:
            raise Unusable(f"with {where} the mail's attachments are over {self._most} bytes, the most there may be")
        _check(where, content, wanted.sha256)
        return content

    def _type(self, name: str) -> str:
        found, packing = self._types.guess_type(name)
        if packing is not None:
            return _PACKED.get(packing, _PLAIN)
        # Content of these types would have to be written in other ways than a file's.
        return _PLAIN if found is None or found.startswith(("message/", "multipart/")) else found


@contextmanager
def _opened(root: Path, folder: str, name: str) -> Iterator[int]:
    """A handle to read *name* in *folder* below *root*: what was looked at is what is read, whoever moves what."""
    base = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        way = os.open(folder, _WAY, dir_fd=base)
        try:
            handle = os.open(name, _FILE, dir_fd=way)
        finally:
            os.close(way)
    finally:
        os.close(base)
    try:
        yield handle
    finally:
        os.close(handle)


def _read(handle: int, most: int) -> bytes:
    """Up to *most* bytes."""
    with os.fdopen(os.dup(handle), "rb") as file:
        return file.read(most)


def _check(where: str, content: bytes, wanted: str | None) -> None:
    if wanted is not None and (found := hashlib.sha256(content).hexdigest()) != wanted:
        raise Unusable(f"{where} is not the one that was meant: its SHA-256 is {found}, not {wanted}")
