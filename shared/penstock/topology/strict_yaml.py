"""YAML as plain words, lists and mappings that know their lines, and nothing more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from penstock.errors import ConfigError

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 12

#: Up to here PyYAML's own parser reads, whose words for errors are the better ones; beyond it the C parser, if there is
#: one, which reads some 10 MB a second instead of 100 KB.
_SMALL = 32 * 1024

#: Characters that are looked at in one go: a thread that reads a large file lets others run in between.
_PIECE = 256 * 1024


@dataclass(slots=True)  # not frozen: one takes three times as long to make, and a large file has millions
class Scalar:
    """Text, a whole number, a truth value, or whatever else YAML reads from one word; *raw* is the word as written."""

    value: object
    line: int
    raw: str


@dataclass(slots=True)
class Items:
    """A list."""

    nodes: tuple[Node, ...]
    line: int


@dataclass(slots=True)
class Entries:
    """A mapping, in the order written; a key that comes twice is there twice, for the reader to refuse."""

    pairs: tuple[tuple[Node, Node], ...]
    line: int


Node: TypeAlias = Scalar | Items | Entries


def read_text(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """The text of the file at *path*. Raises ``ConfigError`` when it cannot be read, is no UTF-8 or too large."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise ConfigError(_too_large(str(path), max_bytes))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8") from error


@dataclass(frozen=True, slots=True)
class Apart:
    """The mapping under the key *field* of a document that is a mapping, taken apart while it is read.

    *begin* is told what the document says before it. Each of its entries is then handed to *take*, as key and value,
    and not kept: a large file is never in memory as a whole.
    """

    field: str
    begin: Callable[[Entries], None]
    take: Callable[[Node, Node], None]


def parse(text: str, file: str, max_bytes: int = MAX_BYTES, apart: Apart | None = None) -> Node:
    """Read the one document in *text*; *file* is its name in errors.

    Anchors, aliases, tags, further documents, nesting beyond ``MAX_DEPTH`` and texts beyond *max_bytes* are refused,
    so that a document is never larger than it looks. Raises ``ConfigError`` with file and line, and when PyYAML is not
    installed; something of it may have been taken *apart* before.
    """
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(f"{file} needs PyYAML to be read: pip install 'penstock[worker]'") from error
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise ConfigError(_too_large(file, max_bytes))
    try:
        return _document(_events(text), file, apart)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{file}:{line}: {_no_alias(error, text) or _not_yaml(error, text)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{file}:{line}: not YAML: character {error.character!r} is not allowed") from None


def _too_large(file: str, max_bytes: int) -> str:
    return f"{file}:1: the file is larger than {max_bytes // 1024} KiB"


def _no_alias(error: yaml.MarkedYAMLError, text: str) -> str | None:
    """What is said to an asterisk that begins no alias, such as a cron expression's."""
    if "alias" not in (error.context or "") or error.context_mark is None:
        return None
    rest = re.split(r", | #|[}\]\r]", text.split("\n")[error.context_mark.line][error.context_mark.column :])[
        0
    ].rstrip()
    return f'YAML takes {rest:.60} for an alias; quote a text that begins with *, such as "{rest:.60}"'


def _not_yaml(error: yaml.MarkedYAMLError, text: str) -> str:
    return f"not YAML: {error.problem or error.context}{_hint(error, text)}"


def _hint(error: yaml.MarkedYAMLError, text: str) -> str:
    """What helps with the slips that are made most."""
    problem = error.problem or ""
    if "cannot start any token" in problem and error.problem_mark:
        at = text.split("\n")[error.problem_mark.line][error.problem_mark.column :][:1]
        return "; indent by spaces, never by tabs" if at == "\t" else f"; quote a text that begins with {at}"
    return '; quote a text that has ": " in it' if "mapping values" in problem else ""


def _events(text: str) -> Iterator[yaml.Event]:
    """The events of *text*. Characters that YAML does not allow are sought first: the C parser does not say where."""
    import yaml

    for start in range(0, len(text), _PIECE):
        found = yaml.reader.Reader.NON_PRINTABLE.search(text, start, start + _PIECE)
        if found:
            raise yaml.reader.ReaderError("", found.start(), ord(found.group()), "unicode", "not allowed")
    fast = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader = (yaml.SafeLoader if len(text) <= _SMALL else fast)(text)
    return iter(loader.get_event, None)


def _document(events: Iterator[yaml.Event], file: str, apart: Apart | None) -> Node:
    """Build the document while its events come, so that what must not be there ends it before anything is built."""
    import yaml

    tree, words, begun = _Tree(apart), _Words(), 0
    scalar, ends = yaml.ScalarEvent, (yaml.MappingEndEvent, yaml.SequenceEndEvent)
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, scalar) and event.anchor is None and event.tag is None:  # the most: no call for them
            raw = event.value
            tree.nodes.append(Scalar(words[raw] if event.implicit[0] else raw, line, raw))
        elif isinstance(event, ends):
            tree.end()
        else:
            begun += isinstance(event, yaml.DocumentStartEvent)
            problem = _forbidden(event, tree.depth, begun)
            if problem:
                raise ConfigError(f"{file}:{line}: {problem}")
            if isinstance(event, yaml.CollectionStartEvent):
                tree.begin(line, isinstance(event, yaml.MappingStartEvent))
    if not tree.nodes:
        raise ConfigError(f"{file}:1: the file is empty")
    return tree.nodes[0]


class _Tree:
    """A document that grows. *nodes*: those of the list or mapping that is open, keys and values in turn."""

    def __init__(self, apart: Apart | None) -> None:
        self.nodes: list[Node] = []
        #: The lists and mappings around: nodes before what is open, its line, and whether it is a mapping.
        self._outside: list[tuple[list[Node], int, bool]] = []
        self._apart = apart
        #: Those of the mapping that is taken apart.
        self._taken: list[Node] | None = None

    @property
    def depth(self) -> int:
        """How many lists and mappings are open."""
        return len(self._outside)

    def begin(self, line: int, mapping: bool) -> None:
        """A list or a mapping begins."""
        before = self.nodes
        self._outside.append((before, line, mapping))
        self.nodes = []
        if self._apart is not None and mapping and self.depth == 2 and self._outside[0][2] and len(before) % 2:
            *pairs, key = before
            if isinstance(key, Scalar) and key.value == self._apart.field:
                self._taken = self.nodes
                self._apart.begin(_entries(pairs, self._outside[0][1]))

    def end(self) -> None:
        """What is open ends."""
        inside = self.nodes
        self.nodes, line, mapping = self._outside.pop()
        if inside is self._taken:
            self._hand_over(inside)
        self.nodes.append(_entries(inside, line) if mapping else Items(tuple(inside), line))
        if self.nodes is self._taken and len(self.nodes) % 2 == 0:
            self._hand_over(self.nodes)

    def _hand_over(self, nodes: list[Node]) -> None:
        if self._apart is not None:
            for key, value in _pairs(nodes):
                self._apart.take(key, value)
            nodes.clear()


def _pairs(nodes: list[Node]) -> Iterator[tuple[Node, Node]]:
    return zip(nodes[::2], nodes[1::2], strict=True)


def _entries(nodes: list[Node], line: int) -> Entries:
    return Entries(tuple(_pairs(nodes)), line)


def _forbidden(event: yaml.Event, depth: int, documents: int) -> str | None:
    """Name what must not be there, within *depth* lists and mappings of the document of that number."""
    import yaml

    if documents > 1:
        return "a second document begins here; only one is allowed"
    if not isinstance(event, yaml.NodeEvent):
        return None
    if depth >= MAX_DEPTH and isinstance(event, yaml.CollectionStartEvent):
        return f"nested deeper than {MAX_DEPTH} levels"
    if event.anchor is not None:
        return "anchors and aliases (& and *) are not allowed; quote a text that begins so"
    if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) and event.tag is not None:
        return f"tags ({event.tag}) are not allowed"
    return None


class _Words(dict[str, object]):
    """What words that are not quoted mean, each found once.

    One that only looks like a number or date (``2024-99-99``), or a merge, stays text.
    """

    def __init__(self) -> None:
        import yaml

        self._construct = yaml.constructor.SafeConstructor().construct_object
        self._looks = yaml.SafeLoader.yaml_implicit_resolvers  # by their first characters: (tag, pattern)

    def __missing__(self, raw: str) -> object:
        found = self[raw] = self._read(raw)
        return found

    def _read(self, raw: str) -> object:
        import yaml

        if len(raw) < 19 and raw.isdecimal() and raw.isascii() and raw[0] != "0":  # most numbers, much faster
            return int(raw)
        for tag, pattern in self._looks.get(raw[:1], ()):
            if pattern.match(raw):
                try:
                    return self._construct(yaml.ScalarNode(tag, raw))
                except (ValueError, OverflowError, yaml.constructor.ConstructorError):
                    break
        return raw
