"""What the mailer's job code asks of the outside: a server that takes mails, and files to go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock_jobs.email import Attachment


class Refused(Exception):
    """The mail server will never take this mail; the text is its own words."""


class NotNow(Exception):
    """The mail server could not be reached or did not take the mail this time; trying again may help.

    *own*: it said so of this mail alone, such as that the mailbox is full; that says nothing of others to its domain.
    """

    def __init__(self, words: str, *, own: bool = False) -> None:
        self.own = own
        super().__init__(words)


class TooMuch(NotNow):
    """The mail server takes no more for this domain for now; the text is its own words."""


class Unusable(Exception):
    """A file that can never go with this mail: it is elsewhere, too large, or not the one that was meant."""


class Missing(Exception):
    """A file that is not there (yet)."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as it goes with a mail: the name the reader sees, its content type, its content."""

    name: str
    content_type: str
    content: bytes


class Post(Protocol):
    """Takes mails. Safe to share by tasks."""

    async def send(self, mail: bytes, sender: str, recipient: str) -> None:
        """Return once the server has taken *mail*. Raises ``Refused`` or ``NotNow``. A mail may be taken twice."""
        ...


class Files(Protocol):
    """Holds the files that go with mails. Safe to share by threads."""

    def read(self, wanted: Sequence[Attachment]) -> list[File]:
        """All of *wanted*, in their order. Raises ``Unusable`` or ``Missing``. Blocks: not for an event loop."""
        ...
