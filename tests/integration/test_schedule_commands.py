"""``penstock schedule`` as its users run it: files checked, schedules looked at, paused and run, ticks made up for."""

from __future__ import annotations

import asyncio
import getpass
import re
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock.schedules.state import Command
from tests.support.commands import Finished, penstock, penstock_in
from tests.support.processes import ROOT, worker_process
from tests.support.scheduler_process import scheduler, told
from tests.support.scheduling import ask, drain, take
from tests.support.scrapes import get, ports_in
from tests.support.ticks import migrated
from tests.support.waiting import eventually
from tests.support.working import empty

pytestmark = pytest.mark.timeout(120)

HOURLY = """
schedules:
  hourly:
    every: 1h
    kind: email.tick
    args: {gate: GATE, text: "{{ fire_time }}"}
    expires: 1h
    jitter: 30m
  lost: {every: 1h, kind: emial.tick}
"""
WINDOW = ("--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T02:00:00Z")
TICKS = [f"schedule:hourly:2026-01-01T0{hour}:00:00Z" for hour in range(3)]


@pytest.fixture
async def file(url: str, tmp_path: Path) -> Path:
    """A file of schedules, and nothing left of the tests before."""
    await empty(url, "jobs.email", "jobs.scheduler", "jobs.scheduler.view")
    gate = tmp_path / "gate"
    gate.touch()
    path = tmp_path / "schedules.yaml"
    path.write_text(HOURLY.replace("GATE", str(gate)))
    return path


async def schedule(url: str, *words: object, **environment: str) -> Finished:
    """``penstock schedule``, with nothing to read from."""
    named = map(str, words)
    return await asyncio.to_thread(lambda: penstock("schedule", *named, RABBITMQ_URL=url, **environment))


def facts(done: Finished) -> Any:
    """What a command printed as JSON."""
    return orjson.loads(done.out)


def test_the_check_shows_the_next_runs(tmp_path: Path) -> None:
    path = tmp_path / "schedules.yaml"
    path.write_text("schedules:\n  mail: {cron: 0 3 * * *, zone: Europe/Berlin, kind: email.tick}\n")
    (tmp_path / "shop.py").write_text("from penstock import JobKind\nKINDS = [JobKind('email.tick', dict)]\n")
    good = penstock_in(tmp_path, "schedule", "check", str(path), "--catalogue", "shop:KINDS")
    lines = good.out.splitlines()
    assert (good.code, lines[0].split(",")[0]) == (0, "mail: email.tick")
    assert re.fullmatch(r"  20..-..-.. 03:00:00\+0[12]:00 Europe/Berlin, 20..-..-..T0[12]:00:00Z", lines[1])
    assert "1 schedule is fine, by shop:KINDS\nqueues are not checked: there is no rabbitmq/topology.yaml" in good.out


def test_the_check_knows_catalogue_and_topology(tmp_path: Path) -> None:
    path, topology = tmp_path / "schedules.yaml", tmp_path / "topology.yaml"
    path.write_text("schedules:\n  a: {every: 1h, kind: digest.dialy}\n  b: {every: 1h, kind: digest.daily}\n")
    topology.write_text("queues: {email: [email.*]}\n")
    bad = penstock_in(ROOT, "schedule", "check", str(path), "--json", PENSTOCK_TOPOLOGY=str(topology))
    assert (bad.code, len(facts(bad)["problems"])) == (5, 4)
    assert bad.err.count("no kind 'digest.dialy' in penstock_jobs:KINDS; did you mean digest.daily?") == 1
    assert bad.err.count(f"{path}:3: schedules.b.args: the arguments do not fit digest.daily: date: ") == 1
    assert bad.err.count(f"no queue of {topology} takes digest.") == 2


def test_a_schedule_that_may_not_overlap_is_refused_where_no_store_is_named(tmp_path: Path) -> None:
    path = tmp_path / "schedules.yaml"
    path.write_text("schedules: {a: {every: 1h, kind: email.tick, overlap: skip}}\n")
    refused = penstock("scheduler", str(path), RABBITMQ_URL="amqp://127.0.0.1:1", PENSTOCK_STORE_URL="")
    assert refused.code == 5
    assert "schedules.a.overlap: skip needs a store" in refused.err


async def test_a_schedule_is_paused_looked_at_and_run_by_hand(url: str, file: Path) -> None:
    of = ("--file", file)
    with scheduler(url, file, 1) as (_, log):
        await eventually(lambda: told(log, '"event":"leading"') == 1, within=40)
        assert (await schedule(url, "pause", "hourly", *of, "--reason", "a fire")).out == "hourly is paused\n"
        shown = facts(await schedule(url, "list", "hourly", *of, "--json"))
    [row] = shown["schedules"]
    assert shown["leader"].startswith("scheduler@")
    assert (row["paused"]["by"], row["paused"]["reason"], row["next"]) == (getpass.getuser(), "a fire", None)
    ran = await schedule(url, "run", "hourly", *of, "--json")
    assert (ran.code, ran.err) == (0, "")
    assert await drain(url, "jobs.email") == [facts(ran)["id"]]


async def test_a_paused_schedule_is_resumed_also_when_it_is_in_the_file_no_more(url: str, file: Path) -> None:
    await ask(url, Command("pause", "former", "ada", 0, "a fire"))
    with scheduler(url, file, 1) as (_, log):
        await eventually(lambda: told(log, '"event":"schedule paused"') == 1, within=40)
        resumed = facts(await schedule(url, "resume", "former", "--file", file, "--by", "bob", "--json"))
        assert (resumed["by"], resumed["obeyed"]) == ("bob", True)
        assert told(log, '"event":"schedule resumed"') == 1


async def test_what_nobody_obeys_or_takes_is_said(url: str, file: Path) -> None:
    of = ("--file", file)
    paused = await schedule(url, "pause", "hourly", *of, "--json")
    assert (paused.code, facts(paused)["obeyed"]) == (6, False)
    misspelled = await schedule(url, "resume", "houry", *of)
    assert (misspelled.code, misspelled.err) == (2, f"penstock: {file} has no schedule 'houry'; did you mean hourly?\n")
    refused = await schedule(url, "backfill", "lost", *of, *WINDOW, "--yes")
    assert refused.code == 7
    assert "0 published, 3 not taken; it is safe to say it again" in refused.out


async def test_a_past_time_is_looked_at_and_made_up_for_only_when_it_is_meant(url: str, file: Path) -> None:
    of = ("--file", file)
    looked = await schedule(url, "backfill", "hourly", *of, *WINDOW, "--dry-run")
    assert [line.split("  ")[1] for line in looked.out.splitlines()[:3]] == [each.split(":", 2)[2] for each in TICKS]
    assert "hourly: 3 ticks of email.tick" in looked.out
    assert looked.out.count("PENSTOCK_STORE_URL") == 1
    unmeant = await schedule(url, "backfill", "hourly", *of, *WINDOW)
    assert (unmeant.code, unmeant.err.count("\n")) == (2, 1)
    assert "this would publish 3 ticks: say --yes" in unmeant.err
    assert await drain(url, "jobs.email") == []
    done = await schedule(url, "backfill", "hourly", *of, *WINDOW, "--yes", "--json")
    assert (done.code, facts(done)["published"], [each["id"] for each in facts(done)["ticks"]]) == (0, 3, TICKS)
    first = (await take(url, "jobs.email", 3))[0]
    assert (first.message_id, orjson.loads(first.body)["text"]) == (TICKS[0], "2026-01-01T00:00:00Z")
    assert first.headers["penstock-schedule"] == "hourly"
    assert "penstock-expires" not in first.headers


async def test_ticks_that_have_run_have_no_second_effect_and_the_store_tells_of_them(url: str, file: Path) -> None:
    store = {"PENSTOCK_STORE_URL": await migrated(f"sqlite:///{file.parent}/store.db")}
    backfill = ("backfill", "hourly", "--file", file, "--from", "2026-01-01T00:00:00Z", "--yes", "--json", "--to")
    served = {**store, "PENSTOCK_METRICS_PORT": "0"}
    async with worker_process(url, file.parent, module="tests.support.tick_apps", **served) as worker:
        await schedule(url, *backfill, "2026-01-01T01:00:00Z", **store)
        await eventually(lambda: len(worker.ledger.read("done")) == 2, within=40)
        again = facts(await schedule(url, *backfill, "2026-01-01T02:00:00Z", **store))
        assert [each["outcomes"] for each in again["ticks"]] == [{"email": "done"}, {"email": "done"}, {}]
        await eventually(lambda: len(worker.ledger.read("done")) == 3, within=40)
        assert [each.job for each in worker.ledger.read("done")] == TICKS
        page = await get((await ports_in(worker.log))[0], "/metrics")
        assert page.value('penstock_schedule_last_done_timestamp_seconds{schedule="hourly"}')
    dry = await schedule(url, "backfill", "hourly", "--file", file, *WINDOW, "--dry-run", **store)
    assert "by the store: 3 done" in dry.out


async def test_the_list_tells_what_became_of_the_last_tick(url: str, file: Path) -> None:
    file.write_text(f"schedules: {{secondly: {{every: 2s, kind: email.tick, args: {{gate: {file}}}}}}}\n")  # noqa: ASYNC240
    store = {"PENSTOCK_STORE_URL": await migrated(f"sqlite:///{file.parent}/store.db")}
    words = ("list", "--file", file)
    async with worker_process(url, file.parent, module="tests.support.tick_apps", **store) as worker:
        with scheduler(url, file, 1) as (process, _):
            await eventually(lambda: worker.ledger.read("done"), within=30)
            process.terminate()
            assert process.wait(30) == 0

        async def last_done() -> str:
            [row] = facts(await schedule(url, *words, "--json", **store))["schedules"]
            return row["last"]["id"] if row["last"] and row["last"]["outcomes"] == {"email": "done"} else ""

        assert await eventually(last_done, within=60) in {each.job for each in worker.ledger.read("done")}
    without = await schedule(url, *words)
    assert without.out.count("what became of ticks is known where PENSTOCK_STORE_URL") == 1
    assert "  -  " in without.out.splitlines()[0]
    away = await schedule(url, *words, "--json", PENSTOCK_STORE_URL=f"sqlite:///{file.parent}/none/store.db")
    assert (away.code, facts(away)["schedules"][0]["last"]["outcomes"]) == (0, None)
    assert "is not known: " in facts(away)["outcomes_unknown"]
