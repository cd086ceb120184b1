"""How a submission shows how far it is: a bar on a terminal, silence elsewhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from services.orders.submitting import Tally

Show = Callable[[Tally], None]


@contextmanager
def shown(console: Console, source: BinaryIO) -> Iterator[Show]:
    """Show the progress through *source* while the block runs: by bytes for a file, as a pulse for a pipe."""
    if not console.is_terminal:
        yield lambda _: None
        return
    size = _size(source)
    columns = (TextColumn("[bold]orders"), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("orders", total=size, words="connecting")

        def show(tally: Tally) -> None:
            done = source.tell() if size is not None else None
            bar.update(
                task, completed=done, words=f"{tally.mails} mails, {tally.reports} reports, {tally.bad} bad rows"
            )

        yield show


def _size(source: BinaryIO) -> int | None:
    status = os.fstat(source.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None
