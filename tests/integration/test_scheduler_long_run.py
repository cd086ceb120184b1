"""Three schedulers whose leader is killed or frozen again and again: every instant of every schedule has one effect."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle, islice
from pathlib import Path

import pytest

from penstock.schedules.model import tick_id
from tests.support.once_apps import QUEUE, kinds, ledger, with_a_ledger
from tests.support.processes import worker_process
from tests.support.scheduler_process import scheduler
from tests.support.scheduling import doubled, no_gap, seen_state
from tests.support.waiting import eventually
from tests.support.working import LEVELS, empty

NAMES = ("one", "two", "three")
FILE = "schedules:\n" + "".join(
    f"  {name}: {{every: 1s, kind: {kinds('email')[0].name}, args: {{user: 1, amount: 5}}}}\n" for name in NAMES
)
#: Seconds within which another one leads, whatever befell the one before, on a busy machine.
PATIENCE = 40


@pytest.fixture(autouse=True)
async def _empty(url: str) -> None:
    await empty(url, "jobs.email", "jobs.email.dead", "jobs.scheduler", "jobs.scheduler.view", *LEVELS)


class Crew:
    """The schedulers, of which there are always three that run or are frozen."""

    def __init__(self, url: str, file: Path, stack: ExitStack) -> None:
        self._url, self._file, self._stack = url, file, stack
        self._numbers: dict[int, int] = {}

    def start(self, number: int) -> None:
        process, _ = self._stack.enter_context(scheduler(self._url, self._file, number))
        self._numbers[process.pid] = number

    async def leader(self, after: int = 0) -> int:
        """The process that leads, once it is another than *after*."""
        found = 0

        async def another() -> bool:
            nonlocal found
            await asyncio.sleep(0.2)  # each look is a connection
            found = await leader_of(self._url)
            return found != after

        await eventually(another, within=PATIENCE)
        return found

    async def harm(self, how: signal.Signals) -> None:
        """Kill or freeze the leader, wait for the next one, and have it again as one that stands by."""
        leader = await self.leader()
        os.kill(leader, how)
        await self.leader(after=leader)
        if how is signal.SIGSTOP:
            os.kill(leader, signal.SIGCONT)
        else:
            self.start(self._numbers.pop(leader))


async def leader_of(url: str) -> int:
    """The process that wrote the newest state."""
    found = re.fullmatch(r"scheduler@.*:(\d+)-\w+", (await seen_state(url)).leader)
    assert found
    return int(found[1])


def harms(count: int) -> Iterator[signal.Signals]:
    """Killed and frozen in turn."""
    return islice(cycle((signal.SIGKILL, signal.SIGSTOP)), count)


@pytest.mark.parametrize(
    ("harmed", "every", "heartbeat"),
    [
        pytest.param(4, 5.0, "?heartbeat=1", marks=pytest.mark.timeout(150)),
        pytest.param(30, 20.0, "", marks=[pytest.mark.matrix, pytest.mark.timeout(1800)]),
    ],
)
async def test_every_instant_has_one_effect_while_leaders_are_killed_and_frozen(
    url: str, tmp_path: Path, harmed: int, every: float, heartbeat: str
) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(FILE)
    store = await with_a_ledger(f"sqlite:///{tmp_path}/store.db")
    worker = {"module": "tests.support.once_apps", QUEUE: "email", "PENSTOCK_STORE_URL": store}
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        crew = Crew(url + heartbeat, file, stack)
        for number in range(3):
            crew.start(number)
        async with worker_process(url, tmp_path, **worker):
            await crew.leader()
            begin, before = loop.time(), (await seen_state(url)).through
            for turn, how in enumerate(harms(harmed), 1):
                await crew.harm(how)
                await eventually(lambda until=begin + turn * every: loop.time() >= until, within=every + 1)  # type: ignore[misc]
            stack.close()
            through = (await seen_state(url)).through
            await all_have_happened(store, through)
    effects = await ledger(store)
    assert not doubled(effects)
    for name in NAMES:
        ids = [each for each in effects if each.split(":")[1] == name]
        assert no_gap(ids)
        assert len(ids) >= through - before


async def all_have_happened(store: str, through: int) -> None:
    """Wait for the effects of the last ticks that are out."""

    async def happened() -> bool:
        found = await ledger(store)
        ids = {name: [each for each in found if each.split(":")[1] == name] for name in NAMES}
        return all(tick_id(name, through) in ids[name] and no_gap(ids[name]) for name in NAMES)

    await eventually(happened, within=30)
