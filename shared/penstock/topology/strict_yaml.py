"""YAML as plain words, lists and mappings that know their lines, and nothing more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from penstock.errors import ConfigError

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 12


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text, a whole number, a truth value, or whatever else YAML reads from one word."""

    value: object
    line: int


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    nodes: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping, in the order written; a key that comes twice is there twice, for the reader to refuse."""

    pairs: tuple[tuple[Node, Node], ...]
    line: int


Node: TypeAlias = Scalar | Items | Entries


def parse(text: str, file: str) -> Node:
    """Read the one document in *text*; *file* is its name in errors.

    Anchors, aliases, tags, further documents, nesting beyond ``MAX_DEPTH`` and texts beyond ``MAX_BYTES`` are refused,
    so that a document is never larger than it looks. Raises ``ConfigError`` with file and line, and when PyYAML is not
    installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise ConfigError(f"{file} needs PyYAML to be read: pip install 'penstock[worker]'") from error
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigError(f"{file}:1: the file is larger than {MAX_BYTES // 1024} KiB")
    try:
        return _parse(text, file)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = "; quote a text that begins with *" if "alias" in (error.context or "") else ""
        raise ConfigError(f"{file}:{line}: not YAML: {error.problem or error.context}{hint}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{file}:{line}: not YAML: character {error.character!r} is not allowed") from None


def _parse(text: str, file: str) -> Node:
    import yaml

    for problem in _forbidden(text):
        raise ConfigError(f"{file}:{problem}")
    root = yaml.compose(text, yaml.SafeLoader)
    if root is None:
        raise ConfigError(f"{file}:1: the file is empty")
    return _node(root, yaml.constructor.SafeConstructor())


def _forbidden(text: str) -> Iterator[str]:
    """Name what must not be there while only tokens are read: before anything is built, however deep or large."""
    import yaml

    depth = documents = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if depth > MAX_DEPTH:
            yield f"{line}: nested deeper than {MAX_DEPTH} levels"
        if documents > 1:
            yield f"{line}: a second document begins here; only one is allowed"
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            yield f"{line}: anchors and aliases (& and *) are not allowed; quote a text that begins so"
        if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) and event.tag is not None:
            yield f"{line}: tags ({event.tag}) are not allowed"


def _node(node: yaml.Node, constructor: yaml.constructor.SafeConstructor) -> Node:
    import yaml

    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        return Entries(tuple((_node(key, constructor), _node(value, constructor)) for key, value in node.value), line)
    if isinstance(node, yaml.SequenceNode):
        return Items(tuple(_node(item, constructor) for item in node.value), line)
    return Scalar(_value(node, constructor), line)


def _value(node: yaml.Node, constructor: yaml.constructor.SafeConstructor) -> object:
    """The value of one word; one that only looks like a number or date (``2024-99-99``) or a merge stays text."""
    import yaml

    try:
        return constructor.construct_object(node)
    except (ValueError, OverflowError, yaml.constructor.ConstructorError):
        return node.value
