"""What the sync's job code asks of the outside: an API that gives pages, and a shelf that keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from services.sync.sources import Source


class Refused(Exception):
    """The API gives no page that can be used until somebody changes something; the text says what is wrong."""


class NotNow(Exception):
    """The API gave no page this time. *after*: when it asks to be asked again, None when it did not say.

    *failed*: the host did not do its part; what it answers in good order, such as 429, is no failure of its own.
    """

    def __init__(self, words: str, *, after: timedelta | None = None, failed: bool = True) -> None:
        self.after = after
        self.failed = failed
        super().__init__(words)


@dataclass(frozen=True, slots=True)
class Place:
    """How far a source is: *position* pages were pulled, and *cursor* names the one to ask for (None: the first).

    *etag*: what that page looked like when it was asked for last, and was the last there was.
    """

    position: int = 0
    cursor: str | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """What an API gave: *items* as JSON by their keys, the *following* page's cursor (None: it was the last)."""

    items: Mapping[str, str]
    following: str | None = None
    etag: str | None = None


class Api(Protocol):
    """Gives pages. Safe to share by tasks."""

    async def page(self, source: Source, place: Place, *, returning: bool) -> Page | None:
        """The page at *place*; None when it is the one that *place* knows. Raises ``Refused``, ``NotNow``, and ``Busy``
        when its host has to be left alone. *returning*: who has waited before; the others queue up behind those who do.
        """
        ...


class Shelf(Protocol):
    """Keeps what was pulled. Safe to share by tasks and processes. Raises ``StoreUnavailable``."""

    async def place(self, source: str) -> Place:
        """How far *source* is."""
        ...

    async def keep(self, source: str, place: Place, page: Page, *, number: int | None) -> bool:
        """Keep the *page* that was at *place*, move on, and ask for the next, as page *number* of this pull: all of it
        or, when somebody else has moved on from *place*, nothing: False. Without *number* nothing is asked for."""
        ...

    async def ask_for(self, sources: Mapping[str, str], expires: timedelta) -> None:
        """Ask for a pull of each source, under the job ids given, which is not begun any more after *expires*."""
        ...
