"""The one extension point around a handler's run: functions from call to call, the first one outermost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import reduce
from typing import Any  # one middleware serves jobs of every argument type

from penstock.job import Job

Next = Callable[[Job[Any]], Awaitable[object]]
Middleware = Callable[[Job[Any], Next], Awaitable[object]]


def wrap(innermost: Next, middleware: Sequence[Middleware]) -> Next:
    """Return *innermost* wrapped in *middleware*.

    A middleware sees the handler's result and errors, and may change both; acks and retries are not its business and
    cannot be taken away.
    """
    return reduce(_around, reversed(middleware), innermost)


def _around(inner: Next, middleware: Middleware) -> Next:
    async def call(job: Job[Any]) -> object:
        return await middleware(job, inner)

    return call
