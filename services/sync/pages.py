"""Reads an API's answer into a page, and says what has changed where its items are not what they were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any  # foreign JSON

import orjson

from services.sync.ports import NotNow, Page, Refused
from services.sync.sources import TYPES, Source, Wanted

#: Changes, and new fields, that are named.
_NAMED = 8
_MAX_KEY = 200
_MAX_CURSOR = 4096

_NOTHING = object()


def read_page(source: Source, body: bytes, *, link: str | None = None, etag: str | None = None) -> Page:
    """The page in *body*; *link* is the URL that the answer's Link header calls next.

    Raises ``NotNow`` for what is no JSON, such as an answer that was cut off, and ``Refused`` for JSON that is not what
    *source* says.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise NotNow(f"the answer is no JSON, or cut off: {error}") from None
    items = _items(source, answer)
    _check(source, items)
    following = link if source.following is None else _following(source.following, answer)
    return Page({_key(source, item): orjson.dumps(item).decode() for item in items}, following, etag)


def _items(source: Source, answer: Any) -> list[Any]:
    where = ".".join(source.items) or "the answer"
    found = _at(answer, source.items)
    if not isinstance(found, list):
        there = ", ".join(list(answer)[:_NAMED]) if isinstance(answer, dict) else _type(answer)
        raise Refused(f"schema changed: {where} is {_type(found)} instead of a list; the answer has {there}")
    return found


def _check(source: Source, items: list[Any]) -> None:
    """Raise ``Refused`` with every way in which *items* are not what *source* says."""
    changes: Counter[str] = Counter()
    bad = 0
    for item in items:
        found = list(_changes(source, item))
        bad += bool(found)
        changes.update(found)
    if not bad:
        return
    words = "; ".join(f"{change} ({count})" for change, count in changes.most_common(_NAMED))
    new = sorted({name for item in items if isinstance(item, dict) for name in item} - set(source.fields))
    told = f"; new there: {', '.join(new[:_NAMED])}" if new else ""
    raise Refused(f"schema changed in {bad} of {len(items)} items: {words}{told}")


def _changes(source: Source, item: Any) -> Iterator[str]:
    if not isinstance(item, dict):
        yield f"an item is {_type(item)} instead of an object"
        return
    for name, wanted in source.fields.items():
        found = item.get(name, _NOTHING)
        if not _fits(wanted, found):
            yield f"{name} is {_type(found)} instead of {wanted.type}"
    if isinstance(key := item.get(source.key), str) and not (key.isprintable() and 0 < len(key) <= _MAX_KEY):
        yield f"{source.key} is no key of 1 to {_MAX_KEY} printable characters"


def _fits(wanted: Wanted, found: Any) -> bool:
    if found is _NOTHING or (found is None and wanted.type != "any"):
        return wanted.optional
    if isinstance(found, bool):  # which Python takes for an integer
        return wanted.type in ("boolean", "any")
    return isinstance(found, TYPES[wanted.type])


def _following(wanted: Wanted, answer: Any) -> str | None:
    found = _at(answer, wanted.path)
    # One that was always there and is not any more would end every pull here, and nobody would know.
    if found is _NOTHING and not wanted.optional:
        raise Refused(f"schema changed: {'.'.join(wanted.path)}, which tells the next page, is missing")
    if found is _NOTHING or found is None or found == "":
        return None
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise Refused(f"schema changed: {'.'.join(wanted.path)}, which tells the next page, is {_type(found)}")
    cursor = str(found)
    if len(cursor) > _MAX_CURSOR or not cursor.isprintable():
        raise Refused(
            f"{'.'.join(wanted.path)}, which tells the next page, has no 1 to {_MAX_CURSOR} printable characters"
        )
    return cursor


def _key(source: Source, item: Mapping[str, Any]) -> str:
    return str(item[source.key])


def _at(answer: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        answer = answer.get(name, _NOTHING) if isinstance(answer, dict) else _NOTHING
    return answer


def _type(value: Any) -> str:
    if value is _NOTHING:
        return "missing"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return next(name for name, types in TYPES.items() if isinstance(value, types))
