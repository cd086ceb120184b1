"""The whole public surface, compared with an approved text: a change of surface shows as a diff of that file.

To approve a change on purpose: ``python -m tests.unit.test_public_names > tests/unit/public_names.txt``.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import penstock
from penstock import testing

_QUOTED = re.compile(r"(: |-> )'([^']*)'")  # annotations are kept as text

APPROVED = Path(__file__).with_name("public_names.txt")


def surface() -> Iterator[str]:
    """Every public name with its signature, and its public members, a line each."""
    for name in penstock.__all__:
        yield from _lines(name, getattr(penstock, name))
    for name in testing.__all__:
        yield from _lines(f"testing.{name}", getattr(testing, name))


def _lines(name: str, value: object) -> Iterator[str]:
    if inspect.ismodule(value):
        yield from (f"{name}.{member}{_signature(getattr(value, member))}" for member in value.__all__)
    elif inspect.isfunction(value):
        yield f"{name}{_signature(value)}"
    elif not inspect.isclass(value):
        yield f"{name} = {value}".replace("penstock.", "")
    elif issubclass(value, Enum):
        yield f"{name}: {', '.join(member.value for member in value)}"
    else:
        bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
        yield f"{name}{_signature(value)}" + (f" < {bases}" if bases else "")
        yield from (f"  .{member}" for member in _members(value))


def _members(value: type) -> Iterator[str]:
    fields = {field.name for field in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()
    for name, member in sorted(vars(value).items()):
        if isinstance(member, property):
            yield f"{name} -> {inspect.signature(member.fget).return_annotation}"  # type: ignore[arg-type]  # has one
        elif inspect.isfunction(member) and not name.startswith("_"):
            yield f"{'async ' if inspect.iscoroutinefunction(member) else ''}{name}{_signature(member)}"
        elif name == "exit_code":
            yield f"{name} = {member}"
        elif not name.startswith("_") and name not in fields and not inspect.ismemberdescriptor(member):
            yield name


def _signature(value: type | object) -> str:
    try:
        return _QUOTED.sub(r"\1\2", str(inspect.signature(value)))  # type: ignore[arg-type]  # what has none raises
    except ValueError:  # an exception that adds nothing to Exception
        return ""


def test_the_public_names_are_the_approved_ones() -> None:
    assert list(surface()) == APPROVED.read_text().splitlines()


def test_the_names_are_listed_once_and_in_order() -> None:
    for module in (penstock, testing):
        assert module.__all__ == sorted(set(module.__all__))


def test_every_public_name_says_what_it_is() -> None:
    classes = [getattr(penstock, name) for name in penstock.__all__ if inspect.isclass(getattr(penstock, name))]
    assert classes
    assert [cls.__name__ for cls in classes if not (cls.__doc__ or "").strip()] == []


if __name__ == "__main__":
    print("\n".join(surface()))  # noqa: T201 - the approved text goes to standard output
