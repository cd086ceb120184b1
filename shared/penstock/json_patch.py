"""Changes of JSON values: JSON Patch (RFC 6902) for an array, JSON Merge Patch (RFC 7396) for an object."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any  # JSON

from penstock.errors import UsageError

_INDEX_ENDS = "-"
_NEEDS = {
    "add": ("path", "value"),
    "remove": ("path",),
    "replace": ("path", "value"),
    "move": ("from", "path"),
    "copy": ("from", "path"),
    "test": ("path", "value"),
}


def patched(value: Any, patch: Any) -> Any:
    """*value* changed by *patch*; *value* itself is left as it is.

    An array is a JSON Patch: its operations are done in order, all of them or none. An object is a merge patch: it
    names what is to be another, and null what is to go. Raises ``UsageError`` in one line for everything else.
    """
    if isinstance(patch, Mapping):
        return _merged(value, patch)
    if not isinstance(patch, list):
        raise UsageError("a patch is a JSON array of operations, or an object with the fields to change")
    changed = deepcopy(value)
    for number, operation in enumerate(patch, 1):
        try:
            changed = _done(changed, operation)
        except (LookupError, ValueError) as error:
            raise UsageError(f"operation {number} of the patch: {error.args[0]}") from None
    return changed


def _merged(value: Any, patch: Any) -> Any:
    if not isinstance(patch, Mapping):
        return deepcopy(patch)
    merged = dict(value) if isinstance(value, Mapping) else {}
    for name, change in patch.items():
        if change is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), change)
    return merged


def _done(document: Any, operation: Any) -> Any:
    verb = operation.get("op") if isinstance(operation, Mapping) else None
    if not isinstance(verb, str) or verb not in _NEEDS:
        raise ValueError(f"op is one of {', '.join(_NEEDS)}")
    if missing := [name for name in _NEEDS[verb] if name not in operation]:
        raise ValueError(f"{verb} needs {' and '.join(missing)}")
    path = _path(operation["path"])
    match verb:
        case "add":
            return _added(document, path, deepcopy(operation["value"]))
        case "replace":
            return _added(_removed(document, path), path, deepcopy(operation["value"])) if path else operation["value"]
        case "remove":
            return _removed(document, path)
        case "test":
            return _tested(document, path, operation["value"])
        case _:
            return _carried(document, verb, _path(operation["from"]), path)


def _carried(document: Any, verb: str, origin: list[str], path: list[str]) -> Any:
    value = deepcopy(_at(document, origin))
    if verb == "move":
        if path[: len(origin)] == origin and path != origin:
            raise ValueError("a value cannot be moved into itself")
        document = _removed(document, origin)
    return _added(document, path, value)


def _tested(document: Any, path: list[str], wanted: Any) -> Any:
    found = _at(document, path)
    if type(found) is not type(wanted) or found != wanted:
        raise ValueError(f"the test of {_spelled(path)} fails")
    return document


def _path(text: object) -> list[str]:
    """The parts of a JSON Pointer (RFC 6901)."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise LookupError(f"{str(text)[:60]!r} is no JSON Pointer, such as /to or /items/0")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _at(document: Any, path: list[str]) -> Any:
    for depth, part in enumerate(path, 1):
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list):
            document = document[_index(part, len(document) - 1, path[:depth])]
        else:
            raise LookupError(f"there is no {_spelled(path[:depth])}")
    return document


def _added(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _at(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if last == _INDEX_ENDS else _index(last, len(parent), path), value)
    elif isinstance(parent, dict):
        parent[last] = value
    else:
        raise UsageError(f"{_spelled(path[:-1])} holds no fields")
    return document


def _removed(document: Any, path: list[str]) -> Any:
    if not path:
        raise ValueError("the whole of the arguments cannot be removed")
    _at(document, path)
    parent, last = _at(document, path[:-1]), path[-1]
    del parent[int(last) if isinstance(parent, list) else last]
    return document


def _index(part: str, last: int, path: list[str]) -> int:
    if not part.isascii() or not part.isdecimal() or (part != "0" and part.startswith("0")) or len(part) > 9:
        raise LookupError(f"{_spelled(path)} names no place in an array")
    if int(part) > last:
        raise LookupError(f"there is no {_spelled(path)}")
    return int(part)


def _spelled(path: list[str]) -> str:
    return repr("/" + "/".join(path))[:100] if path else "the arguments"
