"""Handlers: which code runs which kind, with which retries, deadline and isolation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal, Protocol, TypeVar, overload  # a registry holds handlers of many argument types

from penstock.errors import RegistrationError, UnknownKind
from penstock.job import Job, JobKind
from penstock.retry import RetryPolicy
from penstock.storing import BlockingTransaction, Transaction

A = TypeVar("A")
R = TypeVar("R")

DEFAULT_TIMEOUT = timedelta(minutes=10)


class Isolation(StrEnum):
    """Where a handler runs."""

    LOOP = "loop"
    THREAD = "thread"
    PROCESS = "process"


class Once(StrEnum):
    """How strongly a handler's effect happens once."""

    #: The handler's writes and the mark that the job is done are one transaction.
    EFFECT = "effect"
    #: Claimed before the handler runs, marked after it: for effects outside the database.
    LEASE = "lease"


@dataclass(frozen=True, slots=True)
class Handler:
    """One registered handler; *memory* (bytes) caps the child process of an isolated one."""

    kind: JobKind[Any]
    function: Callable[..., Any]
    retry: RetryPolicy
    timeout: timedelta | None
    isolation: Isolation
    memory: int | None = None
    once: Once | None = None
    in_loop: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "in_loop", inspect.iscoroutinefunction(self.function))


class EffectRegistration(Protocol[A]):
    """Registers a handler that takes its job and a transaction, and returns it unchanged."""

    @overload
    def __call__(
        self, function: Callable[[Job[A], Transaction], Coroutine[Any, Any, R]]
    ) -> Callable[[Job[A], Transaction], Coroutine[Any, Any, R]]: ...

    @overload
    def __call__(
        self, function: Callable[[Job[A], BlockingTransaction], R]
    ) -> Callable[[Job[A], BlockingTransaction], R]: ...


class Handlers:
    """The handlers of one worker service, by kind. Fill it at import time; it is read-only once a worker runs."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Handler] = {}

    @overload
    def on(
        self,
        kind: JobKind[A],
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        isolation: str | None = None,
        memory: int | None = None,
        once: Literal["lease"] | None = None,
    ) -> Callable[[Callable[[Job[A]], R]], Callable[[Job[A]], R]]: ...

    @overload
    def on(
        self,
        kind: JobKind[A],
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        isolation: str | None = None,
        memory: int | None = None,
        once: Literal["effect"],
    ) -> EffectRegistration[A]: ...

    def on(
        self,
        kind: JobKind[A],
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
        isolation: str | None = None,
        memory: int | None = None,
        once: Literal["effect", "lease"] | None = None,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function for *kind* and return it unchanged.

        An ``async def`` handler runs on the event loop and is cancelled after *timeout* (10 minutes by default). A
        ``def`` handler runs in a thread and cannot be stopped, so a *timeout* needs ``isolation="process"``: then it
        runs in a child process that is killed at its deadline and capped at *memory* bytes.

        *once*: the worker's store remembers the job. With ``"effect"`` the handler takes a second argument, a
        ``Transaction`` (``BlockingTransaction`` for a ``def``): what it writes there is committed together with the
        mark that the job is done, so it happens once. With ``"lease"`` the job is claimed before and marked after:
        for effects elsewhere, which take ``job.id`` as their idempotency key. Raises ``RegistrationError`` for a second
        handler of a kind and for options or parameters that do not go together.
        """

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self._add(_handler(kind, function, retry or RetryPolicy(), timeout, isolation, memory, once))
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
    function: Callable[..., Any],
    retry: RetryPolicy,
    timeout: timedelta | None,
    isolation: str | None,
    memory: int | None,
    once: str | None,
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
    strength = None if once is None else _strength(name, function, once)
    deadline = None if where is Isolation.THREAD else timeout or DEFAULT_TIMEOUT
    return Handler(kind, function, retry, deadline, where, memory, strength)


def _strength(name: str, function: Callable[..., Any], once: str) -> Once:
    try:
        strength = Once(once)
    except ValueError:
        raise RegistrationError(f"{name} says once={once!r}: it is 'effect', 'lease' or left out") from None
    try:
        inspect.signature(function).bind(*(("job", "tx") if strength is Once.EFFECT else ("job",)))
    except TypeError:
        wanted = "(job, tx): the job and its transaction" if strength is Once.EFFECT else "(job)"
        raise RegistrationError(f"{name} says once={once!r} and must take {wanted}") from None
    if strength is Once.EFFECT and inspect.iscoroutinefunction(function) and _takes_a_blocking_one(function):
        # Its statements would be coroutines that nobody awaits: nothing would be written, and nothing would fail.
        raise RegistrationError(f"{name} is an async def handler: its transaction is a Transaction")
    return strength


def _takes_a_blocking_one(function: Callable[..., Any]) -> bool:
    annotation = list(inspect.signature(function).parameters.values())[1].annotation
    return annotation is BlockingTransaction or str(annotation).endswith("BlockingTransaction")
