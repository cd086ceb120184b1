"""Bounded polling: a test waits for a fact, never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

_STEP = 0.02


@overload
async def eventually(predicate: Callable[[], Awaitable[T]], within: float = 30.0) -> T: ...
@overload
async def eventually(predicate: Callable[[], T], within: float = 30.0) -> T: ...
async def eventually(predicate: Callable[[], T | Awaitable[T]], within: float = 30.0) -> T:
    """Call *predicate* (a plain or an async function) until it returns something true, and return that.

    Fails the test with the last answer when that does not happen *within* seconds.
    """
    until = time.monotonic() + within
    while True:
        late = time.monotonic() > until  # before the last look, which may take its time as well
        answer = predicate()
        value: T = await answer if inspect.isawaitable(answer) else answer
        if value or late:
            return _found(value, predicate, within)
        await asyncio.sleep(_STEP)


def wait_until(predicate: Callable[[], T], within: float = 30.0) -> T:
    """``eventually`` for tests without an event loop."""
    until = time.monotonic() + within
    while True:
        late = time.monotonic() > until
        value = predicate()
        if value or late:
            return _found(value, predicate, within)
        time.sleep(_STEP)


def _found(value: T, predicate: Callable[[], object], within: float) -> T:
    name = getattr(predicate, "__qualname__", repr(predicate))
    assert value, f"{name} was not true within {within} s; its last answer: {value!r}"
    return value
