"""What the demo shows while it runs: a bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from services.demo.accounting import Pile

#: How often a pipe gets a line at most (seconds).
_LINE_EVERY = 1.0

_TITLE = "Dead letters of this run"
_ERROR_WIDTH = 70


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far a run is; *others*: jobs of the sync, the janitor and the media service."""

    published: int
    mails: int
    reports: int
    credits: int
    dead: int
    others: int = 0

    @property
    def ended(self) -> int:
        """Jobs that are done or dead."""
        return self.mails + self.reports + self.credits + self.others + self.dead


class Screen(Protocol):
    """Shows a run; a context manager."""

    def say(self, words: str) -> None:
        """Show one thing that happened."""
        ...

    def show(self, now: Snapshot) -> None:
        """Show how far the run is."""
        ...

    def table(self, piles: Sequence[Pile]) -> None:
        """Show where the dead letters are."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def screen() -> Screen:
    """The screen that fits standard output."""
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return Terminal(console) if console.is_terminal else Lines(console)


class Lines:
    """Plain lines, each with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._start = time.monotonic()
        self._last: tuple[float, Snapshot | None] = (0.0, None)

    def say(self, words: str) -> None:
        """Show one thing that happened."""
        self._console.print(f"{time.monotonic() - self._start:5.1f} s  {words}")

    def show(self, now: Snapshot) -> None:
        """Show how far the run is, when it is further than a second ago."""
        when, last = self._last
        if now != last and time.monotonic() >= when + _LINE_EVERY:
            self._last = (time.monotonic(), now)
            self.say(f"{now.published} published; done: {_words(now)}; {now.dead} dead")

    def table(self, piles: Sequence[Pile]) -> None:
        """A line for each pile, its columns aligned."""
        self._console.print(_TITLE)
        rows = [("queue", "reason", "letters", "an example", "error"), *(_cells(pile) for pile in piles)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            self._console.print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Terminal(Lines):
    """A bar that moves, with what happens above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        # The bar takes what the words leave: all of it fits into 80 columns.
        columns = (BarColumn(None), TextColumn("{task.description}"))
        self._bar = Progress(*columns, console=console, transient=True, expand=True)
        self._task = self._bar.add_task("", total=None)

    def show(self, now: Snapshot) -> None:
        """Move the bar."""
        words = f"{now.ended}/{now.published} ended: {_words(now)}, {now.dead} dead"
        self._bar.update(self._task, completed=now.ended, total=now.published, description=words)

    def table(self, piles: Sequence[Pile]) -> None:
        """A table."""
        table = Table("queue", "reason", "letters", "an example", "error", title=_TITLE)
        for pile in piles:
            table.add_row(*_cells(pile))
        self._console.print(table, soft_wrap=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


def _words(now: Snapshot) -> str:
    counts = {"mails": now.mails, "reports": now.reports, "credits": now.credits, "others": now.others}
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _cells(pile: Pile) -> tuple[str, str, str, str, str]:
    error = pile.error if len(pile.error) <= _ERROR_WIDTH else pile.error[: _ERROR_WIDTH - 1] + "…"
    return pile.queue, pile.reason, str(pile.count), pile.example, error
