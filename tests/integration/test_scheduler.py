"""The scheduler on a real broker: who leads, what is out, and what becomes of it when something breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import aio_pika
import orjson
import pytest

from penstock import Events, leading
from penstock.events import ConnectFailed, LinkBlocked
from penstock.schedules.events import (
    ClockSetBack,
    LeadershipLost,
    LeadershipWon,
    SchedulePaused,
    ScheduleResumed,
    SchedulerMessageRefused,
    SchedulerStandsBy,
    ScheduleStateLost,
    Ticked,
    TickRefused,
    TicksMissed,
)
from penstock.schedules.model import CatchUp, Schedule
from penstock.schedules.state import MAX_STATE, Command, State
from penstock.schedules.triggers import Every, Once
from penstock.schedules.watching import Watched
from penstock.testing.clock import ManualClock
from penstock.topology.build import build
from penstock.topology.reading import parse_spec
from tests.integration.conftest import Fragile
from tests.support.scheduling import (
    PATIENCE,
    Listed,
    Running,
    ask,
    drain,
    left_in,
    no_gap,
    scheduling,
    seen_state,
    take,
)
from tests.support.waiting import eventually
from tests.support.working import empty

SECONDLY = Schedule("secondly", "email.tick", Every(1), args={"at": "{{ fire_time }}", "of": "{{ name }}"})


@pytest.fixture(autouse=True)
async def _empty(url: str) -> None:
    await empty(url, "jobs.email", "jobs.report", "jobs.scheduler", "jobs.scheduler.view")


def now() -> int:
    return int(time.time())


async def eventually_left(url: str, count: int) -> int:
    """What lies in the schedulers' queue once what they held has come back to it, and acks have arrived."""
    for _ in range(200):
        if (left := await left_in(url, "jobs.scheduler")) == count:
            break
        await asyncio.sleep(0.05)
    return left


async def leave_state(url: str, state: State, key: str = "state") -> None:
    """Leave a state as a scheduler that is gone would have."""
    async with await aio_pika.connect(url) as connection:
        exchange = await (await connection.channel()).get_exchange("jobs.scheduler", ensure=False)
        await exchange.publish(aio_pika.Message(state.encode(), type="state"), key)


def state_of(through: int, seq: int = 7, term: int = 3) -> State:
    return State(seq, through, term, "another", through * 1000)


async def test_a_tick_is_an_ordinary_job_with_the_id_of_its_schedule_and_instant(url: str) -> None:
    async with scheduling(url, Listed(SECONDLY)) as running:
        [message, following] = await take(url, "jobs.email", 2)
        [told, *more] = await running.until(Ticked, 3)
    assert message.message_id == told.id
    assert message.type == message.routing_key == "email.tick"
    name, at = (message.message_id or "").removeprefix("schedule:").split(":", 1)
    assert orjson.loads(message.body) == {"at": at, "of": name}
    assert message.headers["penstock-schedule"] == "secondly"
    assert (following.message_id or "") > told.id
    assert min(event.late for event in (told, *more)) < 1  # one of them may meet a machine that stands still


async def test_of_several_schedulers_one_leads_and_the_next_takes_over_where_it_was(url: str) -> None:
    source = Listed(SECONDLY)
    async with scheduling(url, source) as first:
        await first.leads()
        async with scheduling(url, source) as second:
            await second.until(SchedulerStandsBy)
            await first.until(Ticked, 2)
            assert not second.of(Ticked)
            first.broker.links[0].abort()  # type: ignore[attr-defined]
            won = await second.leads()
            assert won.previous == first.scheduler.name
            await first.until(LeadershipLost)
            await second.until(Ticked, 2)
    assert no_gap(await drain(url, "jobs.email"))


async def test_an_empty_queue_is_told_and_nothing_is_made_up_for(url: str) -> None:
    daily, before = replace(SECONDLY, trigger=Every(86_400), catch_up=CatchUp.ALL), now()
    async with scheduling(url, Listed(daily)) as running:
        await running.leads()
        assert len(running.of(ScheduleStateLost)) == 1
        assert before <= (await seen_state(url)).through <= now()
    assert await drain(url, "jobs.email") == []


@pytest.mark.parametrize(
    ("catch_up", "expected", "missed"), [(CatchUp.NONE, 0, 5), (CatchUp.LAST, 1, 4), (CatchUp.ALL, 3, 2)]
)
async def test_what_fell_due_while_nobody_led_is_made_up_for_as_the_schedule_says(
    url: str, catch_up: CatchUp, expected: int, missed: int
) -> None:
    through = now() - 5 * 3600 - 1800
    hourly = Schedule("hourly", "email.tick", Every(3600, anchor=through + 1800), catch_up=catch_up, max_catch_up=3)
    hourly = replace(hourly, ends=through + 1800 + 4 * 3600)
    await leave_state(url, state_of(through))
    async with scheduling(url, Listed(hourly)) as running:
        won = await running.leads()
        assert (won.through, won.term) == (through, 4)
        assert [event.count for event in await running.until(TicksMissed)] == [missed]
    assert len(await drain(url, "jobs.email")) == expected


async def test_of_two_states_the_one_of_the_later_leader_counts(url: str) -> None:
    for state in (state_of(100, seq=9, term=5), state_of(200, seq=80, term=4), state_of(300, seq=10, term=5)):
        await leave_state(url, state)
    async with scheduling(url, Listed()) as running:
        assert (await running.leads()).through == 300
    assert await eventually_left(url, 1) == 1


async def test_fifty_crashes_in_a_row_leave_one_state_and_no_gap(url: str) -> None:
    source = Listed(SECONDLY)
    async with scheduling(url, source) as running:
        for crash in range(1, 51):
            await running.leads(crash)
            running.broker.links[-1].abort()  # type: ignore[attr-defined]
            await running.until(LeadershipLost, crash)
        await running.leads(51)
        await running.until(Ticked, len(running.of(Ticked)) + 2)
        assert (await seen_state(url)).term == 51
    assert await eventually_left(url, 1) == 1
    assert no_gap(await drain(url, "jobs.email"))


async def test_a_refused_tick_holds_up_no_other_and_comes_again(url: str) -> None:
    start = now()
    await leave_state(url, state_of(start - 3))  # its ticks are due at once, however long the election takes
    lost = Schedule("lost", "report_typo.tick", Every(1), ends=start)
    async with scheduling(url, Listed(lost, SECONDLY)) as running:
        refused = await running.until(TickRefused, 2)
        await running.until(Ticked, len(running.of(Ticked)) + 1)
        assert {event.schedule for event in refused} == {"lost"}
        assert all("no queue is bound" in event.reason and event.again for event in refused)
        await eventually(lambda: owes(url, "lost"))
        async with await aio_pika.connect(url) as connection:
            queue = await (await connection.channel()).get_queue("jobs.report", ensure=False)
            await queue.bind("jobs", "report_typo.tick")
            try:
                came = await take(url, "jobs.report", 2)
            finally:
                await queue.unbind("jobs", "report_typo.tick")
    ids = [message.message_id for message in came]
    assert len(set(ids)) == 2
    assert all((each or "").startswith("schedule:lost:") for each in ids)


async def owes(url: str, schedule: str) -> bool:
    """Whether the state says that ticks of it are still to come."""
    return schedule in (await seen_state(url)).owed


async def test_a_refused_tick_of_a_schedule_that_catches_up_nothing_is_missed_after_its_grace(url: str) -> None:
    at = now()
    await leave_state(url, state_of(at - 1))  # it is due as soon as somebody leads
    lost = Schedule("lost", "report_typo.tick", Once(at), grace=timedelta(seconds=5))
    async with scheduling(url, Listed(lost)) as running:
        await running.until(TickRefused)
        [missed] = await running.until(TicksMissed)
        assert (missed.schedule, missed.count, missed.newest) == ("lost", 1, at)
        await running.until(Ticked, 0)
    assert await drain(url, "jobs.report") == []


async def test_a_paused_schedule_is_silent_until_it_is_resumed_and_the_state_says_who_and_why(url: str) -> None:
    async with scheduling(url, Listed(SECONDLY)) as running:
        await running.until(Ticked)
        await ask(url, Command("pause", "secondly", "ada", 1_000, "the printer burns"))
        [paused] = await running.until(SchedulePaused)
        assert (paused.schedule, paused.by, paused.reason) == ("secondly", "ada", "the printer burns")
        ticked = len(running.of(Ticked))
        state = await seen_state(url)
        assert (state.paused["secondly"].by, state.paused["secondly"].at) == ("ada", 1_000)
    async with scheduling(url, Listed(SECONDLY)) as successor:
        await successor.leads()
        await asyncio.wait_for(asyncio.sleep(2.2), 5)  # two instants pass in silence
        assert not successor.of(Ticked)
        await ask(url, Command("resume", "secondly", "grace", 2_000))
        await successor.until(ScheduleResumed)
        await successor.until(Ticked)
        assert (await seen_state(url)).paused == {}
    assert ticked >= 1


async def test_a_changed_file_counts_at_once_without_missing_or_doubling_a_tick(url: str) -> None:
    source = Listed(SECONDLY)
    other = replace(SECONDLY, name="other")
    async with scheduling(url, source) as running:
        await running.until(Ticked, 2)
        source.set(SECONDLY, other)
        while not any(event.schedule == "other" for event in await running.until(Ticked)):
            await running.until(Ticked, len(running.of(Ticked)) + 1)
        source.set(other)
        ticked = running.of(Ticked)
        await running.until(Ticked, len(ticked) + 4)
    ids = await drain(url, "jobs.email")
    assert len(set(ids)) == len(ids)
    assert no_gap([each for each in ids if ":other:" in each])


@dataclass(frozen=True)
class Laborious:
    """A trigger of every second whose first instant is not found before it is *allowed*."""

    allowed: threading.Event

    def after(self, instant: int) -> int:
        assert self.allowed.wait(PATIENCE)
        return instant + 1

    def before(self, instant: int) -> int:
        return instant - 1

    @property
    def words(self) -> str:
        return "Every second"


async def test_ticks_come_while_another_file_is_read_and_planned(url: str, tmp_path: Path) -> None:
    file, read, planned = tmp_path / "schedules.yaml", threading.Event(), threading.Event()
    file.write_text("first")

    def reading(path: Path) -> list[Schedule]:
        if path.read_text() == "first":
            return [SECONDLY]
        assert read.wait(PATIENCE)
        return [replace(SECONDLY, name="other", trigger=Laborious(planned))]

    watched = Watched(file, reading, Events())
    async with scheduling(url, watched) as running:
        await running.until(Ticked)
        file.write_text("second")
        await running.until(Ticked, len(running.of(Ticked)) + 2)
        read.set()
        while watched.schedules[0].name != "other":
            await running.until(Ticked, len(running.of(Ticked)) + 1)
        await running.until(Ticked, len(running.of(Ticked)) + 1)
        assert {event.schedule for event in running.of(Ticked)} == {"secondly"}
        planned.set()
        while running.of(Ticked)[-1].schedule != "other":
            await running.until(Ticked, len(running.of(Ticked)) + 1)
    instants = [event.instant for event in running.of(Ticked)]
    assert instants == list(range(instants[0], instants[0] + len(instants)))


async def test_strangers_in_the_queue_do_no_harm(url: str) -> None:
    async with await aio_pika.connect(url) as connection:
        exchange = await (await connection.channel()).get_exchange("jobs.scheduler", ensure=False)
        for body, kind in ((b"", "state"), (b"{", "command"), (b"[1]", None), (b'{"penstock": 1}', "state")):
            await exchange.publish(aio_pika.Message(body, type=kind), "state")
    async with scheduling(url, Listed(SECONDLY)) as running:
        await running.until(Ticked)
    assert await eventually_left(url, 1) == 1


async def test_a_clock_that_is_set_back_doubles_nothing_and_is_told(url: str) -> None:
    clock = ManualClock()
    start = clock.now_ms() // 1000
    await leave_state(url, state_of(start + 7200))
    async with scheduling(url, Listed(SECONDLY), clock=clock) as running:
        [told] = await running.until(ClockSetBack)
        assert told.seconds == 7200
        await clock.advance(timedelta(hours=2))
        assert not running.of(Ticked)
        await clock.advance(timedelta(seconds=1))
        [ticked] = await running.until(Ticked)
    assert ticked.instant == start + 7201


async def test_jitter_delays_a_tick_by_the_same_share_for_every_copy() -> None:
    from penstock.schedules.ticks import tick

    spread = replace(SECONDLY, jitter=timedelta(minutes=5))
    delays = [tick(spread, instant).delay or timedelta() for instant in range(1000)]
    assert delays == [tick(spread, instant).delay or timedelta() for instant in range(1000)]
    assert timedelta() <= min(delays) < timedelta(seconds=10)
    assert timedelta(minutes=4, seconds=50) < max(delays) <= timedelta(minutes=5)


def told(running: Running) -> int:
    """How many commands were answered."""
    return len(running.of(SchedulePaused)) + len(running.of(SchedulerMessageRefused))


def _answered(running: Running, commands: int) -> bool:
    return told(running) >= commands


async def test_more_pauses_than_there_is_room_for_are_refused_and_harm_nobody(url: str) -> None:
    async with scheduling(url, Listed(SECONDLY)) as running:
        asked = 0
        while not running.of(SchedulerMessageRefused):
            names = [f"{asked + number}-{'x' * 90}" for number in range(40)]
            await ask(url, *(Command("pause", name, "ada", 1_000, "y" * 10_000) for name in names))
            asked += 40
            await eventually(partial(_answered, running, asked))
        await running.until(Ticked, len(running.of(Ticked)) + 2)
        assert len(running.of(LeadershipWon)) == 1
        state = await seen_state(url)
    assert 100 < len(state.paused) < asked
    assert len(state.encode()) <= MAX_STATE


async def test_an_alarm_is_outlived_and_what_fell_due_meanwhile_comes_after_it(
    fragile: Fragile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "_CONFIRM", 1.0)  # the ten seconds of everybody else would be waited for twice
    late = replace(SECONDLY, grace=timedelta(minutes=5))
    async with scheduling(fragile.url, Listed(late)) as running:
        await running.until(Ticked)
        with fragile.blocked():
            await running.until(LinkBlocked)
            until = time.monotonic() + 3
            await eventually(lambda: time.monotonic() > until)
        await running.until(Ticked, len(running.of(Ticked)) + 4)
    assert no_gap(await drain(fragile.url, "jobs.email"))


async def test_a_queue_that_is_deleted_and_made_again_is_led_again(url: str) -> None:
    topology = build(parse_spec("queues: {email: [email.*]}"))
    [state_queue] = [each for each in topology.queues if each.name == "jobs.scheduler"]
    async with scheduling(url, Listed(SECONDLY)) as running:
        await running.until(Ticked)
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.queue_delete("jobs.scheduler")
            await running.until(ConnectFailed)
            queue = await channel.declare_queue("jobs.scheduler", durable=True, arguments=dict(state_queue.arguments))
            await queue.bind("jobs.scheduler", "*")
        await running.leads(2)
        assert len(running.of(ScheduleStateLost)) == 2
        await running.until(Ticked, len(running.of(Ticked)) + 1)


async def test_a_state_that_nothing_happens_to_is_written_as_often_as_it_has_to_be_and_no_more(url: str) -> None:
    async with scheduling(url, Listed(Schedule("rare", "email.tick", Once(4_000_000_000))), rewrite=0.5) as running:
        await running.leads()
        began = time.monotonic()
        first = (await seen_state(url)).seq
        written = await eventually(lambda: newer_state(url, first + 3))
        assert written is not None
        assert written.seq - first <= (time.monotonic() - began) / 0.5 + 1


async def newer_state(url: str, seq: int) -> State | None:
    state = await seen_state(url)
    return state if state.seq >= seq else None
