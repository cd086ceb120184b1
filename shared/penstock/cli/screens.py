"""Facts for one look: tables with what is wrong in red, the same words in a pipe, and the options they share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.management import Management
from penstock.overview.model import Trouble
from penstock.printable import printable
from penstock.settings import Settings

#: Columns of a pipe, which nobody folds.
_PIPE = 240

Cell = str | Text


@contextmanager
def on_management(settings: Settings) -> Iterator[Management]:
    """The management API of the settings' broker, asked once: whoever looks again asks again."""
    if settings.log_level is not None:
        from penstock import logs  # takes a tenth of the time a look takes, and nobody here has much to say

        logs.setup(settings)
    url = settings.broker_url
    with Management(url, os.environ.get("RABBITMQ_MANAGEMENT_URL"), tries=1) as management:
        yield management


def screen() -> Console:
    """Where things are shown: as wide as the terminal, or as a pipe takes."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PIPE)


def table(console: Console, names: Sequence[str], rows: Sequence[Sequence[Cell]], numbers: Sequence[str] = ()) -> None:
    """Print *rows* under *names*; the columns in *numbers* stand to the right."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        shown.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for cells in rows:
        shown.add_row(*(cell if isinstance(cell, Text) else Text(printable(cell)) for cell in cells))
    console.print(shown)


def told(troubles: Sequence[Trouble]) -> Text:
    """*troubles* in a line: red what a rule would fire for, yellow what may come to that."""
    return Text("; ").join(
        Text(printable(trouble.words), style="bold red" if trouble.firing else "yellow") for trouble in troubles
    )


def plain(trouble: Trouble) -> dict[str, str | bool]:
    """As JSON has it."""
    return {"alert": trouble.alert, "words": trouble.words, "firing": trouble.firing}


def seconds(value: float) -> str:
    """A span in the unit that gives two digits at most: ``45s``, ``12m``, ``3h``, ``9d``."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if value >= 2 * size:
            return f"{value / size:.0f}{unit}"
    return f"{value:.0f}s"
