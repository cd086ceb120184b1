"""Text from outside, made safe to show on a terminal or in a log line."""

from __future__ import annotations


def printable(text: str) -> str:
    """*text* with everything a terminal might obey, line ends included, spelled as escapes."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _spelled(c) for c in text)


def printable_lines(text: str) -> str:
    """As ``printable``, but line ends stay, and tabs become spaces."""
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.splitlines())


def shortened(text: str, limit: int) -> str:
    """*text* cut to *limit* characters, the last of them an ellipsis when something is missing."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _spelled(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
