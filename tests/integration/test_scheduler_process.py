"""``penstock scheduler`` as its users run it: processes that are killed, frozen and misled by their file."""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import httpx2
import pytest

from penstock.testing.free_ports import free_ports
from tests.support.processes import ROOT
from tests.support.scheduler_process import led_since, scheduler, told
from tests.support.scheduling import drain, no_gap
from tests.support.waiting import eventually
from tests.support.working import empty

pytestmark = pytest.mark.timeout(120)  # several processes start, on a machine that may be busy

#: A scheduler and its log.
Process = tuple[subprocess.Popen[bytes], Path]

#: Leaders that are killed, one after the other: the middle one of the hand-overs is judged, whatever the machine does.
KILLS = 5

SECONDLY = 'schedules: {secondly: {every: 1s, kind: email.tick, args: {at: "{{ fire_time }}"}}}\n'


@pytest.fixture(autouse=True)
async def _empty(url: str) -> None:
    await empty(url, "jobs.email", "jobs.scheduler", "jobs.scheduler.view")


async def test_killed_leaders_are_each_followed_within_a_second_and_without_a_gap(url: str, tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(SECONDLY)
    with ExitStack() as stack:
        left = [stack.enter_context(scheduler(url, file, number)) for number in range(1 + KILLS)]
        for _, log in left:
            await said(log, "standing by")
        taken, leader = [], await leading(left)
        for _ in range(KILLS):
            await said(leader[1], '"event":"tick"')
            killed = time.time()
            leader[0].kill()
            left.remove(leader)
            leader = await leading(left)
            taken.append((led_since(leader[1]) or 0) - killed)
    assert median(taken) <= 1, taken
    assert no_gap(await drain(url, "jobs.email"))


async def said(log: Path, words: str) -> None:
    """Wait until *words* stand in the log."""
    await eventually(lambda: told(log, words) >= 1, within=40)


async def leading(schedulers: Sequence[Process]) -> Process:
    """The one that leads, once one does."""

    def found() -> Process | None:
        return next((each for each in schedulers if led_since(each[1]) is not None), None)

    leader = await eventually(found, within=20)
    assert leader is not None
    return leader


async def test_a_frozen_leader_is_followed_without_a_gap(url: str, tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(SECONDLY)
    with scheduler(url, file, 1) as (first, first_log):
        await eventually(lambda: told(first_log, '"event":"tick"') >= 2, within=30)
        with scheduler(url, file, 2) as (second, second_log):
            await eventually(lambda: told(second_log, "standing by") == 1, within=30)
            first.send_signal(signal.SIGSTOP)
            await eventually(lambda: told(second_log, '"event":"leading"') == 1, within=25)
            await eventually(lambda: told(second_log, '"event":"tick"') >= 2, within=30)
            first.send_signal(signal.SIGCONT)
            second.terminate()
            assert second.wait(30) == 0
    assert no_gap(await drain(url, "jobs.email"))


async def test_a_broken_file_keeps_the_old_schedules_and_a_mended_one_counts(url: str, tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(SECONDLY)
    with scheduler(url, file, 1) as (process, log):
        await eventually(lambda: told(log, '"event":"tick"') >= 1, within=30)
        file.write_text("schedules: {secondly: {every: never, kind: email.tick}}\n")
        await eventually(lambda: told(log, "schedules not usable") == 1, within=30)
        before = told(log, '"event":"tick"')
        await eventually(lambda: told(log, '"event":"tick"') > before, within=30)
        file.write_text(SECONDLY.replace("secondly:", "other:"))
        await eventually(lambda: told(log, '"schedule":"other"') >= 1, within=30)
        process.terminate()
        assert process.wait(30) == 0


async def test_a_scheduler_shows_the_documented_metrics(url: str, tmp_path: Path) -> None:
    file, [port] = tmp_path / "schedules.yaml", free_ports(1)
    file.write_text(SECONDLY.replace("}}\n", "}, lost: {every: 1s, kind: report_typo.tick}}\n", 1))
    with scheduler(url, file, 1, PENSTOCK_METRICS_PORT=str(port)) as (_, log):
        await eventually(lambda: told(log, '"event":"tick refused"') >= 1, within=30)
        await eventually(lambda: told(log, '"event":"tick"') >= 1, within=30)
        async with httpx2.AsyncClient(timeout=30) as client:
            ready = await client.get(f"http://127.0.0.1:{port}/readyz")
            async with asyncio.timeout(45):
                page = ""
                while 'penstock_schedule_refused_total{schedule="lost"}' not in page or "ticks_total{" not in page:
                    page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
                    await asyncio.sleep(0.2)
    assert ready.status_code == 200
    assert "penstock_scheduler_leads 1.0" in page
    assert "penstock_schedules 2.0" in page
    assert 'penstock_scheduler_info{scheduler="scheduler@' in page
    assert 'penstock_schedule_next_timestamp_seconds{schedule="secondly"}' in page
    named = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]+) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    assert named == {name for name, roles in rows if "scheduler" in roles.split(", ")}
