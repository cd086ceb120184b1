"""Files that go with mails: read from below one folder and from nowhere else, as large as they may be and no larger."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from mimetypes import MimeTypes
from pathlib import Path

from penstock.service_files import Outside, source_in
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
            with source_in(self._root, wanted.folder, wanted.file) as handle:
                content = _read(handle, most + 1)
        except Outside as error:
            raise Unusable(f"{where} leads elsewhere: it is no file, or a link") from error
        except FileNotFoundError as error:
            raise Missing(f"{where} is not there") from error
        except OSError as error:
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


def _read(handle: int, most: int) -> bytes:
    """Up to *most* bytes."""
    with os.fdopen(os.dup(handle), "rb") as file:
        return file.read(most)


def _check(where: str, content: bytes, wanted: str | None) -> None:
    if wanted is not None and (found := hashlib.sha256(content).hexdigest()) != wanted:
        raise Unusable(f"{where} is not the one that was meant: its SHA-256 is {found}, not {wanted}")
