"""The demo's parts against real ones: the sink by a mail client, letters on a broker, processes of the system."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest

from penstock.urls import BrokerUrl
from services.demo.crew import Crew, MemberDied
from services.demo.effects import Book
from services.demo.eye import opened
from services.mailer.ports import NotNow, Refused
from services.mailer.smtp import SmtpPool, SmtpServer
from tests.support.processes import alive
from tests.support.scheduling import Listed, scheduling
from tests.support.waiting import eventually
from tests.support.working import declare, foreign, put, take

FOREVER = "import threading; threading.Event().wait()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); {FOREVER}"


def a_mail(job_id: str, run: str) -> bytes:
    message = EmailMessage()
    message["Message-ID"] = f"<{job_id}@penstock>"
    message["X-Correlation-ID"] = run
    message["Subject"] = "hello"
    message.set_content("hello")
    return message.as_bytes()


@asynccontextmanager
async def a_sink(folder: Path, outage: float = 0.0) -> AsyncIterator[SmtpPool]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with Crew(folder, {}) as crew:
            options = ("--fd", str(listening.fileno()), "--outage", str(outage))
            program = ("-m", "services.demo.sink", str(folder / "book"))
            await crew.start("sink", *program, *options, inherit=[listening.fileno()])
            server = SmtpServer("127.0.0.1", listening.getsockname()[1])
            async with SmtpPool(server, 2, timedelta(seconds=30)) as pool:
                yield pool


async def test_the_sink_writes_every_mail_down_a_second_copy_too(tmp_path: Path) -> None:
    async with a_sink(tmp_path) as pool:
        for job_id, run in (("a", "run"), ("a", "run"), ("b", "other")):
            await pool.send(a_mail(job_id, run), "shop@penstock.example", "ada@example.org")
    assert Book(tmp_path / "book", "run").ids() == ["a", "a"]
    assert Book(tmp_path / "book", "other").ids() == ["b"]


async def test_the_sink_refuses_some_addresses_for_good(tmp_path: Path) -> None:
    async with a_sink(tmp_path) as pool:
        with pytest.raises(Refused, match=r"550 5\.1\.1"):
            await pool.send(a_mail("a", "run"), "shop@penstock.example", "nobody@refused.example")
    assert Book(tmp_path / "book", "run").ids() == []


async def test_the_sink_is_down_for_a_while_after_the_first_mail(tmp_path: Path) -> None:
    async with a_sink(tmp_path, outage=0.5) as pool:
        with pytest.raises(NotNow, match="451"):
            await pool.send(a_mail("a", "run"), "shop@penstock.example", "ada@example.org")

        async def is_up_again() -> bool:
            try:
                await pool.send(a_mail("a", "run"), "shop@penstock.example", "ada@example.org")
            except NotNow:
                return False
            return True

        await eventually(is_up_again)


async def test_letters_are_looked_at_by_run_and_stay_where_they_were(vhost_url: str) -> None:
    await declare(vhost_url)
    async with foreign(vhost_url) as channel, opened(BrokerUrl.parse(vhost_url)) as eye:
        for number, run in enumerate(("mine", "theirs", "mine")):
            story = {"penstock-reason": "rejected", "penstock-error": "550 no"}
            await put(
                channel, "jobs.email", b"{}", "jobs.dead", message_id=f"id-{number}", correlation_id=run, headers=story
            )
        queues = ["jobs.email.dead", "jobs.unrouted"]

        async def all_are_back() -> bool:
            return await eye.ready(queues) == 3

        for _ in range(3):
            found = await eye.letters(queues, "mine")
            assert [(letter.id, letter.reason, letter.error) for letter in found] == [
                ("id-0", "rejected", "550 no"),
                ("id-2", "rejected", "550 no"),
            ]
            await eventually(all_are_back)
        assert [(await take(channel, "jobs.email.dead")).message_id for _ in range(3)] == ["id-0", "id-1", "id-2"]


async def test_who_leads_the_schedulers_is_seen_and_the_state_stays_where_it_was(vhost_url: str) -> None:
    await declare(vhost_url)
    async with opened(BrokerUrl.parse(vhost_url)) as eye:
        assert (await eye.consumers("jobs.scheduler"), await eye.schedulers_state()) == (0, None)
        async with scheduling(vhost_url, Listed()) as running:
            leader = (await running.leads()).name
            for _ in range(3):
                state = await eye.schedulers_state()
                assert state is not None
                assert state.leader == leader
            assert await eye.consumers("jobs.scheduler") == 1


async def test_no_process_outlives_its_crew_however_the_block_ends(tmp_path: Path) -> None:
    crew = Crew(tmp_path, {})
    member = await crew.start("one", "-c", FOREVER)
    with pytest.raises(ZeroDivisionError):
        await _fail_in(crew)
    assert member.process.returncode == -signal.SIGTERM


async def test_a_process_that_will_not_end_is_killed(tmp_path: Path) -> None:
    async with Crew(tmp_path, {}) as crew:
        member = await crew.start("one", "-c", STUBBORN)
        await eventually(lambda: "up" in member.log.read_text())
        await crew.stop(member, within=0.2)
    assert member.process.returncode == -signal.SIGKILL


async def test_a_process_that_ends_by_itself_is_noticed_and_one_that_is_killed_on_purpose_is_not(
    tmp_path: Path,
) -> None:
    async with Crew(tmp_path, {"SAYS": "bye"}) as crew:
        killed = await crew.start("killed", "-c", FOREVER)
        await crew.kill(killed)
        crew.check()
        code, log = await crew.run("ends", "-c", "import os; print(os.environ['SAYS']); raise SystemExit(6)")
        assert (code, log.read_text()) == (6, "bye\n")
        crew.check()
        member = await crew.start("dies", "-c", "raise SystemExit(3)")
        await member.process.wait()
        with pytest.raises(MemberDied, match="dies ended with exit code 3"):
            crew.check()


async def test_a_cancellation_that_a_library_lost_is_noticed(tmp_path: Path) -> None:
    async with Crew(tmp_path, {}) as crew:

        async def go_on_regardless() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            crew.check()

        task = asyncio.create_task(go_on_regardless())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_crew_goes_with_a_demo_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from services.demo.crew import Crew\n"
        "async def main():\n"
        f"    async with Crew(pathlib.Path({str(tmp_path)!r}), {{}}) as crew:\n"
        f"        member = await crew.start('one', '-c', {FOREVER!r})\n"
        "        print(member.pid, flush=True)\n"
        "        await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    demo = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    assert demo.stdout is not None
    pid = int(await asyncio.wait_for(demo.stdout.readline(), 20))
    demo.kill()
    await demo.communicate()
    await eventually(lambda: not alive(pid))


async def _fail_in(crew: Crew) -> None:
    async with crew:
        raise ZeroDivisionError
