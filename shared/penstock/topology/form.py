"""Takes strict YAML apart by expectation, noting every problem with its line instead of stopping at the first."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from penstock.topology.strict_yaml import Entries, Items, Node, Scalar

#: Names that are listed where none is near, at most.
_LISTED = 20


class Form:
    """One file being read. Each method returns what it could make of a node and notes what it could not."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._problems: list[tuple[int, str]] = []

    @property
    def problems(self) -> Sequence[str]:
        """Every problem so far as ``file:line: words``, by line."""
        return [
            f"{self._file}:{line}: {words}" for line, words in sorted(self._problems, key=lambda problem: problem[0])
        ]

    @property
    def noted(self) -> int:
        """How many problems there are so far."""
        return len(self._problems)

    def problem(self, node: Node, words: str | None) -> None:
        """Note *words* at the line of *node*; None notes nothing."""
        if words is not None:
            self._problems.append((node.line, words))

    def entries(self, node: Node | None, what: str) -> Sequence[tuple[str, Node, Node]]:
        """The (name, key, value) of a mapping; a missing one is empty, a name that comes twice counts once."""
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return []
        if not isinstance(node, Entries):
            self.problem(node, f"{what} must be a mapping")
            return []
        found: dict[str, tuple[str, Node, Node]] = {}
        for key, value in node.pairs:
            name = self.text(key, f"a key of {what}")
            if name in found:
                self.problem(key, f"{what}: {name} is here twice, first on line {found[name][1].line}")
            elif name:
                found[name] = (name, key, value)
        return list(found.values())

    def fields(self, node: Node, known: Collection[str], what: str) -> dict[str, Node]:
        """The values of a mapping that may only have the *known* keys."""
        if (plain := self.plain(node)) is not None and all(map(known.__contains__, plain)):
            return plain
        fields: dict[str, Node] = {}
        for name, key, value in self.entries(node, what):
            if name in known:
                fields[name] = value
            else:
                self.problem(key, f"{what}: unknown key {name}; known are {', '.join(known)}{near(name, known)}")
        return fields

    @staticmethod
    def plain(node: Node) -> dict[str, Node] | None:
        """The values of a mapping with nothing wrong about its keys, found fast; None for anything else."""
        if not isinstance(node, Entries):
            return None
        found = {
            key.value: value
            for key, value in node.pairs
            if isinstance(key, Scalar) and isinstance(key.value, str) and key.value
        }
        return found if len(found) == len(node.pairs) else None

    def text(self, node: Node, what: str) -> str:
        """A text that is not empty, or the empty one where there is none."""
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value:
            return node.value
        shown = f", not {node.value!r:.40} (quote it?)" if isinstance(node, Scalar) and node.value is not None else ""
        self.problem(node, f"{what} must be a text{shown}")
        return ""

    def texts(self, node: Node | None, what: str) -> Sequence[tuple[str, Node]]:
        """The texts of a list, each with its node; one that comes twice counts once."""
        if node is None:
            return []
        if not isinstance(node, Items) or not node.nodes:
            self.problem(node, f"{what} must be a list with at least one entry")
            return []
        found: dict[str, Node] = {}
        for item in node.nodes:
            text = self.text(item, f"an entry of {what}")
            if text in found:
                self.problem(item, f"{what}: {text} is here twice")
            elif text:
                found[text] = item
        return list(found.items())

    def flag(self, node: Node | None, what: str) -> bool:
        """A truth value; missing is false."""
        if node is None:
            return False
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return node.value
        self.problem(node, f"{what} must be true or false")
        return False

    def whole(self, node: Node | None, what: str, low: int, high: int, default: int) -> int:
        """A whole number from *low* to *high*."""
        if node is None:
            return default
        if isinstance(node, Scalar) and type(node.value) is int and low <= node.value <= high:
            return node.value
        self.problem(node, f"{what} must be a whole number from {low} to {high}")
        return default


def near(word: str, known: Collection[str]) -> str:
    """``; did you mean …?`` for a word that is nearly one of the *known*, nothing otherwise."""
    found = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def near_or_all(word: str, known: Collection[str]) -> str:
    """``; did you mean …?`` as ``near``, else ``; it has …`` with the first few of the *known*."""
    listed = ", ".join(sorted(known)[:_LISTED]) or "none"
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return near(word, known) or f"; it has {listed}{more}"
