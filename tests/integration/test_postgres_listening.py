"""A connection that its event loop listens to all the time: slow answers, much data, lost servers, on either loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
import uvloop

from penstock.claims import StoreUrl
from penstock.stores.postgres_connections import Dialer, Session
from tests.support.postgres import sleeps
from tests.support.waiting import eventually

pytestmark = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])

Loop = Callable[[], asyncio.AbstractEventLoop]

#: More than a socket takes at once, in either direction.
ROWS = 200_000


def play(loop: Loop, url: str, part: Callable[[Session], Awaitable[None]]) -> None:
    """Play *part* with a connection on a loop of its own, as a test's own loop is only one of the two kinds."""

    async def main() -> None:
        session = await Dialer(StoreUrl.parse(url)).dial()
        try:
            await part(session)
        finally:
            await session.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(main(), 60))


async def value(session: Session, statement: str) -> Any:
    [[found]] = await (await session.execute(statement)).fetchall()
    return found


def end(url: str, process: int) -> None:
    """Let the server end the connection it has with *process*."""
    with psycopg.connect(url, autocommit=True) as outside:
        outside.execute("SELECT pg_terminate_backend(%s, 10000)", (process,))


def test_answers_quick_and_slow_are_waited_for_alike(loop: Loop, postgres_url: str) -> None:
    async def part(session: Session) -> None:
        for seconds in (0, 0.3, 0, 0.15, 0):
            assert await value(session, f"SELECT {seconds}::float FROM pg_sleep({seconds})") == seconds

    play(loop, postgres_url, part)


def test_many_tasks_may_ask_on_one_connection_and_each_has_its_own_answer(loop: Loop, postgres_url: str) -> None:
    async def part(session: Session) -> None:
        asked = list(range(200))
        assert await asyncio.gather(*(value(session, f"SELECT {number}") for number in asked)) == asked

    play(loop, postgres_url, part)


def test_an_answer_that_is_awaited_for_too_long_is_given_up(loop: Loop, postgres_url: str) -> None:
    async def part(session: Session) -> None:
        session.patience = 0.5
        with pytest.raises(psycopg.OperationalError, match="timeout expired"):
            await session.execute("SELECT pg_sleep(30)")

    play(loop, postgres_url, part)


def test_much_data_goes_in_and_comes_out(loop: Loop, postgres_url: str) -> None:
    async def part(session: Session) -> None:
        await session.execute("CREATE TEMP TABLE notes (number integer, note text)")
        async with session.cursor() as cursor:
            async with cursor.copy("COPY notes FROM STDIN") as copy:
                for number in range(ROWS):
                    await copy.write_row((number, "x" * 100))
            async with cursor.copy("COPY notes TO STDOUT") as copy:
                assert sum([len(block) async for block in copy]) > 100 * ROWS
        assert await value(session, "SELECT sum(length(note)) FROM notes") == 100 * ROWS
        assert await value(session, f"SELECT length('{'x' * 3_000_000}')") == 3_000_000

    play(loop, postgres_url, part)


@pytest.mark.parametrize("soon", [0.001, 60])
def test_a_task_that_is_cancelled_breaks_its_statement_off_and_leaves_the_connection_to_the_next(
    loop: Loop, postgres_url: str, soon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.stores.postgres_listening._SOON", soon)  # before it is cancelled, or long after

    async def part(session: Session) -> None:
        started = time.monotonic()
        sleeping = asyncio.create_task(session.execute("SELECT pg_sleep(50)"))
        # The server takes no notice of a request to break off what it has not begun.
        await eventually(lambda: asyncio.to_thread(sleeps, postgres_url))
        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping
        assert await value(session, "SELECT 7") == 7
        assert time.monotonic() - started < 40

    play(loop, postgres_url, part)


def test_a_connection_that_ends_while_nobody_asks_lets_the_loop_rest(loop: Loop, postgres_url: str) -> None:
    async def part(session: Session) -> None:
        process = await value(session, "SELECT pg_backend_pid()")
        await asyncio.to_thread(end, postgres_url, process)
        used, turns = time.process_time(), time.monotonic()
        await asyncio.sleep(1.0)
        assert time.process_time() - used < (time.monotonic() - turns) / 2
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")

    play(loop, postgres_url, part)


def test_a_lost_connections_number_is_another_ones_without_harm(loop: Loop, postgres_url: str) -> None:
    numbers = set()

    async def lose(session: Session) -> None:
        process, number = await value(session, "SELECT pg_backend_pid()"), session.pgconn.socket
        numbers.add(number)
        ending = asyncio.create_task(asyncio.to_thread(end, postgres_url, process))
        with suppress(psycopg.OperationalError):
            await session.execute("SELECT pg_sleep(20)")
        await ending
        assert session.broken
        assert not asyncio.get_running_loop().remove_reader(number)

    async def part(first: Session) -> None:
        await lose(first)
        for _ in range(5):
            # The lost one is not even closed: its number is free all the same.
            session = await Dialer(StoreUrl.parse(postgres_url)).dial()
            assert await value(session, "SELECT 5 FROM pg_sleep(0.12)") == 5
            await lose(session)

    play(loop, postgres_url, part)
    assert len(numbers) < 6, "no number came twice: nothing was tried"


def test_a_closed_connection_lets_go_of_whoever_waits_on_it(loop: Loop, postgres_url: str) -> None:
    async def part(session: Session) -> None:
        waiting = asyncio.create_task(session.execute("SELECT pg_sleep(50)"))
        await asyncio.sleep(0)
        number = session.pgconn.socket
        await session.close()
        assert not asyncio.get_running_loop().remove_reader(number)
        with pytest.raises(psycopg.OperationalError):
            await asyncio.wait_for(waiting, 20)

    play(loop, postgres_url, part)
