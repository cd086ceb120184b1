"""The part of a page of the docs that a measurement writes: what stands between two marks."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"

_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def write(page: Path, text: str) -> None:
    """Put *text* between the marks of *page*, in place of what is there."""
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")
