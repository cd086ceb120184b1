"""Patches of arguments, by the examples of RFC 6902 and RFC 7396, and one clear line for each that cannot be done."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.errors import UsageError
from penstock.json_patch import patched


def op(op: str, path: str, **more: Any) -> dict[str, Any]:
    return {"op": op, "path": path, **more}


@pytest.mark.parametrize(
    ("value", "patch", "result"),
    [
        ({"foo": "bar"}, [op("add", "/baz", value="qux")], {"baz": "qux", "foo": "bar"}),
        ({"foo": ["bar", "baz"]}, [op("add", "/foo/1", value="qux")], {"foo": ["bar", "qux", "baz"]}),
        ({"foo": ["bar"]}, [op("add", "/foo/-", value=["a"])], {"foo": ["bar", ["a"]]}),
        ({"foo": ["bar", "qux", "baz"]}, [op("remove", "/foo/1")], {"foo": ["bar", "baz"]}),
        ({"foo": ["a", "b"]}, [op("replace", "/foo/1", value="c")], {"foo": ["a", "c"]}),
        ({"a": {"b": 1}, "c": {}}, [op("move", "/c/d", **{"from": "/a/b"})], {"a": {}, "c": {"d": 1}}),
        ({"foo": ["all", "grass"]}, [op("move", "/foo/1", **{"from": "/foo/0"})], {"foo": ["grass", "all"]}),
        ({"a": [1]}, [op("copy", "/b", **{"from": "/a"}), op("add", "/b/-", value=2)], {"a": [1], "b": [1, 2]}),
        ({"a/b": 1, "m~n": 2}, [op("remove", "/a~1b"), op("replace", "/m~0n", value=3)], {"m~n": 3}),
        ({"": 1}, [op("replace", "/", value=2)], {"": 2}),
        ({"a": 1}, [op("replace", "", value={"b": 2})], {"b": 2}),
        ({"a": 1}, [op("test", "/a", value=1), op("remove", "/a")], {}),
        ({"a": "b", "c": {"d": "e", "f": "g"}}, {"a": "z", "c": {"f": None}}, {"a": "z", "c": {"d": "e"}}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ("text", {"a": 1}, {"a": 1}),
    ],
)
def test_a_patch_changes_what_it_says(value: Any, patch: Any, result: Any) -> None:
    assert patched(value, patch) == result


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ([op("add", "/a/b", value=1)], "operation 1 of the patch: '/a' holds no fields"),
        ([op("add", "/x/y", value=1)], "operation 1 of the patch: there is no '/x'"),
        ([op("remove", "/x")], "there is no '/x'"),
        ([op("remove", "")], "the whole of the arguments cannot be removed"),
        ([op("replace", "/x", value=1)], "there is no '/x'"),
        ([op("remove", "/l/2")], "there is no '/l/2'"),
        ([op("add", "/l/3", value=0)], "there is no '/l/3'"),
        ([op("remove", "/l/01")], "names no place in an array"),
        ([op("remove", "/l/-")], "names no place in an array"),
        ([op("test", "/a", value=True)], "the test of '/a' fails"),
        ([op("move", "/d/e", **{"from": "/d"})], "cannot be moved into itself"),
        ([op("add", "a", value=1)], "'a' is no JSON Pointer"),
        ([op("add", "/a")], "add needs value"),
        ([{"op": "turn", "path": "/a"}], "op is one of add, remove"),
        (["x"], "op is one of"),
        (5, "a patch is a JSON array"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_line_and_changes_nothing(patch: Any, why: str) -> None:
    value = {"a": 1, "l": [1, 2], "d": {}}
    with pytest.raises(UsageError) as refused:
        patched(value, patch)
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
    assert value == {"a": 1, "l": [1, 2], "d": {}}
