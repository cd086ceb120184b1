"""Running handlers inside the worker: on the event loop under a deadline, or in a pool of threads."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any  # handlers of many argument types pass through here

from penstock.claiming import Claiming
from penstock.errors import JobTimeout
from penstock.handlers import Handler, Handlers, Once
from penstock.job import Job
from penstock.middleware import Middleware, Next, wrap


def calls(
    handlers: Handlers,
    middleware: Sequence[Middleware],
    threads: Executor,
    claiming: Claiming | None = None,
    *,
    deadlines: bool = True,
) -> Mapping[str, Next]:
    """How to run each kind: its handler on the loop or in *threads*, inside *middleware*, under its deadline.

    A handler of ``once="effect"`` runs in a transaction of *claiming*'s store; middleware sees it committed.

    Without *deadlines* where somebody else keeps them: a child that answered at its own would live on, with whatever
    its handler has left running.
    """
    plain = {handler.kind.name: _call(handler, middleware, threads, claiming) for handler in handlers}
    if not deadlines:
        return plain
    return {handler.kind.name: _with_deadline(plain[handler.kind.name], handler) for handler in handlers}


def _call(handler: Handler, middleware: Sequence[Middleware], threads: Executor, claiming: Claiming | None) -> Next:
    in_loop = asyncio.iscoroutinefunction(handler.function)
    function = handler.function
    if handler.once is Once.EFFECT and claiming is not None:
        function = partial(claiming.effect if in_loop else claiming.effect_in_thread, function)
    innermost: Next = function if in_loop else _in_thread(function, threads)
    return wrap(innermost, middleware)


def _with_deadline(call: Next, handler: Handler) -> Next:
    if handler.timeout is None:
        return call
    seconds = handler.timeout.total_seconds()
    name = getattr(handler.function, "__name__", handler.kind.name)

    async def run(job: Job[Any]) -> object:
        timer = asyncio.timeout(seconds)
        try:
            async with timer:
                return await call(job)
        except TimeoutError as error:
            if timer.expired():
                raise JobTimeout(f"{name} ran past its deadline of {seconds:g} s") from error
            raise

    return run


def _in_thread(function: Callable[[Job[Any]], object], threads: Executor) -> Next:
    async def call(job: Job[Any]) -> object:
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        raised, value = await loop.run_in_executor(threads, context.run, _guarded, function, job)
        if raised is not None:
            raise raised
        return value

    return call


def _guarded(function: Callable[[Job[Any]], object], job: Job[Any]) -> tuple[BaseException | None, object]:
    """SystemExit and StopIteration cannot travel through a future, so errors leave the thread as values."""
    try:
        return None, function(job)
    except BaseException as error:  # noqa: BLE001 - every end of a handler is an answer, whatever it raised
        return error, None
