"""A connection to PostgreSQL that its event loop goes on listening to between two answers."""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from types import TracebackType
from typing import Any, TypeVar  # rows hold whatever SQL carries

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.generators import execute
from psycopg.waiting import Ready, Wait

R = TypeVar("R")

#: Seconds within which nearly every answer comes.
_SOON = 0.1

_FINE = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK, pq.ExecStatus.EMPTY_QUERY)


class ListeningConnection(psycopg.AsyncConnection[tuple[Any, ...]]):
    """psycopg's connection, with less to do for each answer. One event loop; safe to share by its tasks, as psycopg's.

    psycopg takes the socket into the loop and a timer with it for every answer, and out again, which costs as much as
    asking. Here both stay; what is not there soon, or is no answer, is waited for in psycopg's way.
    """

    _listened: int | None = None
    _waiter: asyncio.Future[bool] | None = None
    _since = 0.0
    _timer: asyncio.TimerHandle | None = None

    async def wait(self, gen: PQGen[R], interval: float = _SOON, timeout: float | None = None) -> R:
        """See psycopg: everything that is sent on the connection passes here. Soon is before *timeout*."""
        waited = False
        try:
            wanted = next(gen)
            while wanted == Wait.R and await self._heard_soon():
                waited = True
                wanted = gen.send(Ready.R)
        except StopIteration as end:
            if not waited:
                await asyncio.sleep(0)  # a long COPY never waits for an answer, and others have their turn too
            result: R = end.value
            return result
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit) as error:
            gen = _Interrupted(gen, error)
        except BaseException:
            self._listen_no_more()
            raise
        self._listen_no_more()
        return await super().wait(gen, interval, timeout)

    async def say(self, words: bytes, limit: float) -> Sequence[pq.abc.PGresult]:
        """Say *words*, SQL without parameters, and wait *limit* seconds for the results of all statements, or those up
        to the first that failed.

        With nothing of psycopg in between, that takes a third of the processor's time. Not while somebody else says
        something. Raises psycopg's errors about the connection; one whose answer was not waited for is ended.
        """
        connection = self.pgconn
        results: list[pq.abc.PGresult] = []
        connection.send_query(words)
        try:
            if connection.flush():  # there is no room for what is sent
                results = await super().wait(execute(connection), timeout=limit)
            while True:
                if connection.is_busy():
                    if await self._heard_soon():
                        connection.consume_input()
                    elif (limit := limit - _SOON) <= 0:
                        raise psycopg.OperationalError("wait timeout expired")
                elif (result := connection.get_result()) is not None:
                    results.append(result)
                else:
                    break
        except BaseException:
            self._listen_no_more()
            connection.finish()
            raise
        return results

    async def close(self) -> None:
        """See psycopg."""
        self._listen_no_more()
        await super().close()

    def _heard_soon(self) -> asyncio.Future[bool]:
        """Whether there is something to read before long."""
        loop = asyncio.get_running_loop()
        if self._listened is None:
            socket = self.pgconn.socket
            loop.add_reader(socket, self._on_readable)
            self._listened = socket
        if self._timer is None:
            self._timer = loop.call_later(_SOON, self._on_timer, loop)
        self._since = loop.time()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiter = waiter
        return waiter

    def _on_readable(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self._listen_no_more()  # nobody reads what came unasked for, and the loop would tell of it for ever
        elif not waiter.done():
            waiter.set_result(True)

    def _on_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer serves many answers: each begins its time anew."""
        self._timer = None
        if self._waiter is None:
            return
        left = self._since + _SOON - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._on_timer, loop)
        else:
            self._listen_no_more()

    def _listen_no_more(self) -> None:
        """Take the socket out of the loop: before it is closed, for its number may be another's at once."""
        if self._listened is not None:
            asyncio.get_running_loop().remove_reader(self._listened)
            self._listened = None
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(False)


def checked(results: Sequence[pq.abc.PGresult]) -> pq.abc.PGresult:
    """The last of *results*. Raises psycopg's error when one of them is a failure."""
    for result in results:
        if result.status not in _FINE:
            raise psycopg.errors.error_from_result(result)
    return results[-1]


class _Interrupted(Generator[Any, Any, R]):
    """*gen*, in the midst of which *error* came: that is raised first, so that psycopg tells the server of it."""

    def __init__(self, gen: PQGen[R], error: BaseException) -> None:
        self._gen = gen
        self._error: BaseException | None = error

    def send(self, ready: Any) -> Any:
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._gen.send(ready)

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None) -> Any:
        return self._gen.throw(kind, value, trace)
