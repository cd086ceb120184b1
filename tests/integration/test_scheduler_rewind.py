"""A state that lies ahead of the clock, because a scheduler ran with a wrong one: told, counted, and set right."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta

import aio_pika
import orjson
import pytest

from penstock.schedules.events import (
    ClockCaughtUp,
    ClockSetBack,
    SchedulerMessageRefused,
    StateRewound,
    Ticked,
    TicksMissed,
)
from penstock.schedules.model import CatchUp, Schedule, utc_text
from penstock.schedules.state import Command, Pause, State, read_state
from penstock.schedules.triggers import Every
from tests.support.commands import Finished, penstock
from tests.support.scheduling import Listed, ask, drain, no_gap, scheduling
from tests.support.working import empty

SECONDLY = Schedule("secondly", "email.tick", Every(1))
OTHER = Schedule("other", "email.tick", Every(1))
LOST = Schedule("lost", "report_typo.tick", Every(366 * 86_400))
YEARS = 3 * 366 * 86_400


@pytest.fixture(autouse=True)
async def _empty(url: str) -> None:
    await empty(url, "jobs.email", "jobs.scheduler", "jobs.scheduler.view")


def now() -> int:
    return int(time.time())


async def leave(url: str, state: State) -> None:
    """Leave a state as a scheduler that is gone would have."""
    async with await aio_pika.connect(url) as connection:
        exchange = await (await connection.channel()).get_exchange("jobs.scheduler", ensure=False)
        await exchange.publish(aio_pika.Message(state.encode(), type="state"), "state")


def ahead(**other: object) -> State:
    """What a scheduler whose clock was years ahead has left, and one with the right clock has taken over since."""
    return replace(State(7, now() + YEARS, 3, "wrong", now() * 1000), **other)  # type: ignore[arg-type]


async def seen_state(url: str) -> State:
    """The state that anybody may look at."""
    async with await aio_pika.connect(url) as connection:
        message = await (await (await connection.channel()).get_queue("jobs.scheduler.view", ensure=False)).get()
        await message.nack(requeue=True)
    state = read_state(message.body)
    assert state is not None
    return state


async def rewind(url: str, *words: str) -> Finished:
    return await asyncio.to_thread(penstock, "schedule", "rewind", *words, RABBITMQ_URL=url)


async def test_a_state_that_is_years_ahead_is_told_and_set_right_by_a_command(url: str) -> None:
    await leave(url, ahead(paused={"other": Pause(5, "ada", "a fire")}, owed={"lost": (now() + YEARS,)}))
    async with scheduling(url, Listed(SECONDLY, OTHER, LOST)) as running:
        [told] = await running.until(ClockSetBack)
        assert told.seconds > YEARS - 60
        assert not running.of(Ticked)
        done = await rewind(url, "--reason", "the battery of its clock was empty", "--by", "grace")
        assert (done.code, done.err) == (0, "")
        assert f"were said to be out up to {utc_text(told.through)}" in done.out
        [rewound] = await running.until(StateRewound)
        assert (rewound.before, rewound.by) == (told.through, "grace")
        await running.until(Ticked, 3)
        assert len(running.of(ClockCaughtUp)) == 1
        assert "lost" not in (await seen_state(url)).owed  # it comes by itself, in years
        again = await rewind(url, "--json")
        assert (again.code, orjson.loads(again.out)["obeyed"]) == (0, True)
    assert len(running.of(StateRewound)) == 1
    assert {event.schedule for event in running.of(Ticked)} == {"secondly"}
    assert min(event.instant for event in running.of(Ticked)) > rewound.through
    assert no_gap(await drain(url, "jobs.email"))


async def test_what_fell_due_since_an_instant_is_made_up_for_as_each_schedule_says(url: str) -> None:
    whole = replace(SECONDLY, catch_up=CatchUp.ALL, max_catch_up=1000, grace=timedelta(seconds=5))
    last = replace(OTHER, catch_up=CatchUp.LAST, grace=timedelta(seconds=5))
    await leave(url, ahead())
    since = now() - 120
    async with scheduling(url, Listed(whole, last)) as running:
        await running.until(ClockSetBack)
        assert (await rewind(url, "--to", utc_text(since))).code == 0
        await running.until(Ticked, 130)
        [missed] = running.of(TicksMissed)
        assert missed.schedule == "other"
    ids = await drain(url, "jobs.email")
    mine = [each for each in ids if ":secondly:" in each]
    assert min(mine) == f"schedule:secondly:{utc_text(since + 1)}"
    assert no_gap(mine)
    assert len(set(mine)) == len(mine)


async def test_a_state_that_is_not_ahead_is_left_as_it_is(url: str) -> None:
    async with scheduling(url, Listed(SECONDLY)) as running:
        await running.until(Ticked)
        await ask(url, Command("rewind", "", "ada", 1_000, "", now() - 3600))
        [told] = await running.until(SchedulerMessageRefused)
        assert told.reason.startswith("to rewind: ticks are out up to ")
        await running.until(Ticked, len(running.of(Ticked)) + 2)
        assert not running.of(StateRewound)
    assert no_gap(await drain(url, "jobs.email"))


async def test_where_nobody_can_obey_the_command_says_what_to_do(url: str) -> None:
    assert (await rewind(url)).out.startswith("nothing to rewind")
    assert (await rewind(url, "--to", "2990-01-01T00:00:00Z")).code == 2
    await leave(url, ahead(written=(now() + YEARS) * 1000))
    done = await rewind(url)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "set the wrong clock right, or stop that scheduler" in done.err
    await leave(url, ahead())
    done = await rewind(url)
    assert done.code == 6
    assert "no scheduler has obeyed yet" in done.out
