"""Handlers: which code runs which kind, with which retries, deadline and isolation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar  # a registry holds handlers of many argument types

from penstock.errors import RegistrationError, UnknownKind
from penstock.job import Job, JobKind
from penstock.retry import RetryPolicy

A = TypeVar("A")
R = TypeVar("R")

DEFAULT_TIMEOUT = timedelta(minutes=10)


class Isolation(StrEnum):
    """Where a handler runs."""

    LOOP = "loop"
    THREAD = "thread"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered handler; *memory* (bytes) caps the child process of an isolated one."""

    kind: JobKind[Any]
    function: Callable[[Job[Any]], Any]
    retry: RetryPolicy
    timeout: timedelta | None
    isolation: Isolation
    memory: int | None = None


class Handlers:
    """The handlers of one worker service, by kind. Fill it at import time; it is read-only once a worker runs."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Handler] = {}

    def on(
        self,
        kind: JobKind[A],
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        isolation: str | None = None,
        memory: int | None = None,
    ) -> Callable[[Callable[[Job[A]], R]], Callable[[Job[A]], R]]:
        """Register the decorated function for *kind* and return it unchanged.

        An ``async def`` handler runs on the event loop and is cancelled after *timeout* (10 minutes by default). A
        ``def`` handler runs in a thread and cannot be stopped, so a *timeout* needs ``isolation="process"``: then it
        runs in a child process that is killed at its deadline and capped at *memory* bytes. Raises
        ``RegistrationError`` for a second handler of a kind and for options that do not go together.
        """

        def register(function: Callable[[Job[A]], R]) -> Callable[[Job[A]], R]:
            self._add(_handler(kind, function, retry or RetryPolicy(), timeout, isolation, memory))
            return function

        return register

    def for_kind(self, name: str) -> Handler:
        """The handler of kind *name*. Raises ``UnknownKind``."""
        try:
            return self._by_kind[name]
        except KeyError:
            raise UnknownKind(f"no handler here for kind {name!r}") from None

    def __iter__(self) -> Iterator[Handler]:
        return iter(self._by_kind.values())

    def __len__(self) -> int:
        return len(self._by_kind)

    def _add(self, handler: Handler) -> None:
        name = handler.kind.name
        if name in self._by_kind:
            raise RegistrationError(f"kind {name!r} already has the handler {self._by_kind[name].function.__name__}")
        self._by_kind[name] = handler


def _handler(
    kind: JobKind[Any],
    function: Callable[[Job[Any]], Any],
    retry: RetryPolicy,
    timeout: timedelta | None,
    isolation: str | None,
    memory: int | None,
) -> Handler:
    is_async = inspect.iscoroutinefunction(function)
    where = Isolation(isolation) if isolation else (Isolation.LOOP if is_async else Isolation.THREAD)
    name = getattr(function, "__name__", repr(function))
    if where is Isolation.LOOP and not is_async:
        raise RegistrationError(
            f"{name} is a def handler and would block the loop: make it async def or leave isolation out"
        )
    if where is Isolation.THREAD and is_async:
        raise RegistrationError(f"{name} is an async def handler: leave isolation out, or say isolation='process'")
    if where is Isolation.THREAD and timeout is not None:
        raise RegistrationError(
            f"{name} is a def handler with a timeout, but a thread cannot be stopped: say isolation='process'"
        )
    if where is not Isolation.PROCESS and memory is not None:
        raise RegistrationError(f"{name} has a memory cap: only isolation='process' can keep it")
    if timeout is not None and timeout <= timedelta():
        raise RegistrationError(f"{name} has a timeout of {timeout}: it must be above 0")
    deadline = None if where is Isolation.THREAD else timeout or DEFAULT_TIMEOUT
    return Handler(kind, function, retry, deadline, where, memory)
