"""What the demo shows: plain lines in a pipe, a bar on a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from services.demo.accounting import Pile
from services.demo.screen import Lines, Snapshot, Terminal

PILES = [Pile("jobs.email.dead", "rejected", "550 5.1.1 no such mailbox " + "x" * 200, 40, "id-1")]


def test_a_pipe_gets_one_line_for_what_happens_and_no_escape_codes() -> None:
    said = io.StringIO()
    with Lines(Console(file=said, highlight=False, markup=False, soft_wrap=True, width=40)) as lines:
        lines.say("[bold] is no markup here")
        lines.table(PILES)
    first, title, header, row = said.getvalue().splitlines()
    assert first.endswith("s  [bold] is no markup here")
    assert title == "Dead letters of this run"
    assert header.split() == ["queue", "reason", "letters", "an", "example", "error"]
    assert row.startswith("jobs.email.dead  rejected  40")
    assert row.endswith("…")
    assert "\x1b" not in said.getvalue()


def test_a_pipe_hears_of_progress_once_a_second_at_most_and_never_twice_the_same() -> None:
    said = io.StringIO()
    with Lines(Console(file=said)) as lines:
        for mails in range(1000):
            lines.show(Snapshot(2000, mails, 0, 0, 0))
    assert len(said.getvalue().splitlines()) == 1


def test_a_terminal_gets_a_bar_and_a_table() -> None:
    said = io.StringIO()
    with Terminal(Console(file=said, force_terminal=True, width=80, highlight=False)) as terminal:
        terminal.show(Snapshot(2446, 1916, 6, 396, 106, 5))
        terminal.table(PILES)
    assert "2429/2446" in said.getvalue()
    assert "106 dead" in said.getvalue()
    assert "Dead letters of this run" in said.getvalue()
