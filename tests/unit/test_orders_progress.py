"""The bar of a submission: by bytes for a file, nothing at all where no terminal reads it."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from services.orders.progress import shown
from services.orders.submitting import Tally


def shown_for(path: Path, *, terminal: bool) -> str:
    said = io.StringIO()
    console = Console(file=said, force_terminal=terminal, width=100)
    with path.open("rb") as source, shown(console, source) as show:
        source.read(50)
        show(Tally(mails=7, reports=2, bad=1, line=9))
    return said.getvalue()


def test_a_terminal_sees_how_far_the_file_was_read(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_bytes(b"x" * 100)
    assert "7 mails, 2 reports, 1 bad rows" in shown_for(tmp_path / "orders.csv", terminal=True)


def test_a_pipe_gets_no_bar(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_bytes(b"x" * 100)
    assert shown_for(tmp_path / "orders.csv", terminal=False) == ""
