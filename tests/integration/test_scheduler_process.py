"""``penstock scheduler`` as its users run it: processes that are killed, frozen and misled by their file."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path

import httpx2
import orjson
import pytest

from penstock.testing.broker_files import free_ports
from tests.support.commands import penstock
from tests.support.processes import ROOT
from tests.support.scheduler_process import scheduler, told
from tests.support.scheduling import drain, no_gap
from tests.support.waiting import eventually
from tests.support.working import empty

SECONDLY = 'schedules: {secondly: {every: 1s, kind: email.tick, args: {at: "{{ fire_time }}"}}}\n'


@pytest.fixture(autouse=True)
async def _empty(url: str) -> None:
    await empty(url, "jobs.email", "jobs.scheduler", "jobs.scheduler.view")


@pytest.mark.parametrize(("harm", "within"), [(signal.SIGKILL, 5), (signal.SIGSTOP, 25)])
async def test_a_leader_that_is_killed_or_frozen_is_followed_without_a_gap(
    url: str, tmp_path: Path, harm: signal.Signals, within: float
) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(SECONDLY)
    with scheduler(url, file, 1) as (first, first_log):
        await eventually(lambda: told(first_log, '"event":"tick"') >= 2, within=30)
        with scheduler(url, file, 2) as (second, second_log):
            await eventually(lambda: told(second_log, "standing by") == 1, within=30)
            first.send_signal(harm)
            await eventually(lambda: told(second_log, '"event":"leading"') == 1, within=within)
            await eventually(lambda: told(second_log, '"event":"tick"') >= 2, within=10)
            first.send_signal(signal.SIGCONT)
            second.terminate()
            assert second.wait(15) == 0
    assert no_gap(await drain(url, "jobs.email"))


async def test_a_broken_file_keeps_the_old_schedules_and_a_mended_one_counts(url: str, tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(SECONDLY)
    with scheduler(url, file, 1) as (process, log):
        await eventually(lambda: told(log, '"event":"tick"') >= 1, within=30)
        file.write_text("schedules: {secondly: {every: never, kind: email.tick}}\n")
        await eventually(lambda: told(log, "schedules not usable") == 1, within=10)
        before = told(log, '"event":"tick"')
        await eventually(lambda: told(log, '"event":"tick"') > before, within=10)
        file.write_text(SECONDLY.replace("secondly:", "other:"))
        await eventually(lambda: told(log, '"schedule":"other"') >= 1, within=10)
        process.terminate()
        assert process.wait(15) == 0


def test_the_check_shows_the_next_runs_and_every_mistake(tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(SECONDLY)
    good = penstock("scheduler", str(file), "--check")
    assert (good.code, good.out.splitlines()[0]) == (0, "secondly: email.tick, Every second")
    file.write_text("schedules: {a: {every: never, kind: email.tick}, b: {kind: email.tick}}\n")
    bad = penstock("scheduler", str(file), "--check")
    assert bad.code == 5
    assert len(bad.err.splitlines()) == 2
    assert penstock("scheduler", str(tmp_path / "none.yaml"), "--check").code == 5


async def test_a_schedule_is_paused_looked_at_run_by_hand_and_resumed(url: str, tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(SECONDLY)

    def schedule(*words: str) -> tuple[int, str, str]:
        done = penstock("schedule", *words, RABBITMQ_URL=url)
        return done.code, done.out, done.err

    code, out, _ = await asyncio.to_thread(schedule, "list", "--file", str(file))
    assert (code, out.splitlines()[-1]) == (0, "no state of schedulers on the broker: none has run yet")
    with scheduler(url, file, 1) as (_, log):
        await eventually(lambda: told(log, '"event":"tick"') >= 1, within=30)
        paused = await asyncio.to_thread(schedule, "pause", "secondly", "--file", str(file), "--reason", "a fire")
        assert paused[:2] == (0, "secondly is paused\n")
        _, out, _ = await asyncio.to_thread(schedule, "list", "--file", str(file), "--json")
        assert "a fire" in orjson.loads(out)[0]["note"]
        await drain(url, "jobs.email")
        code, out, err = await asyncio.to_thread(schedule, "run", "secondly", "--file", str(file))
        assert (code, err) == (0, "")
        assert await drain(url, "jobs.email") == [out.strip()]
        assert (await asyncio.to_thread(schedule, "resume", "secondly"))[:2] == (0, "secondly is resumed\n")
        ticks = told(log, '"event":"tick"')
        await eventually(lambda: told(log, '"event":"tick"') > ticks, within=10)
    assert (await asyncio.to_thread(schedule, "pause", "secondly", "--file", str(file)))[0] == 6
    code, _, err = await asyncio.to_thread(schedule, "run", "thirdly", "--file", str(file))
    assert (code, err.count("\n")) == (2, 1)
    assert "has no schedule 'thirdly'; it has secondly" in err


async def test_a_scheduler_shows_the_documented_metrics(url: str, tmp_path: Path) -> None:
    file, [port] = tmp_path / "schedules.yaml", free_ports(1)
    file.write_text(SECONDLY.replace("}}\n", "}, lost: {every: 1s, kind: report_typo.tick}}\n", 1))
    with scheduler(url, file, 1, PENSTOCK_METRICS_PORT=str(port)) as (_, log):
        await eventually(lambda: told(log, '"event":"tick refused"') >= 1, within=30)
        await eventually(lambda: told(log, '"event":"tick"') >= 1, within=30)
        async with httpx2.AsyncClient() as client:
            ready = await client.get(f"http://127.0.0.1:{port}/readyz")
            async with asyncio.timeout(20):
                page = ""
                while 'penstock_schedule_refused_total{schedule="lost"}' not in page or "ticks_total{" not in page:
                    page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
                    await asyncio.sleep(0.2)
    assert ready.status_code == 200
    assert "penstock_scheduler_leads 1.0" in page
    named = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]+) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    assert named == {name for name, roles in rows if "scheduler" in roles.split(", ")}


def test_the_next_runs_of_a_schedule_are_shown_in_its_zone_and_utc(tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text("schedules: {xmas: {at: 2996-12-24T18:00:00+01:00, zone: Europe/Berlin, kind: email.tick}}\n")
    done = penstock("schedule", "next", "xmas", "--file", str(file))
    assert done.out.split() == ["2996-12-24", "18:00:00", "Europe/Berlin", "2996-12-24T17:00:00Z"]


def test_a_schedule_that_may_not_overlap_is_refused_where_no_store_is_named(tmp_path: Path) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text("schedules: {a: {every: 1h, kind: email.tick, overlap: skip}}\n")
    for words in (("--check",), ()):
        refused = penstock("scheduler", str(file), *words, RABBITMQ_URL="amqp://127.0.0.1:1", PENSTOCK_STORE_URL="")
        assert refused.code == 5
        assert "schedules.a.overlap: skip needs a store" in refused.err
    assert penstock("scheduler", str(file), "--check", PENSTOCK_STORE_URL="sqlite:///store.db").code == 0
