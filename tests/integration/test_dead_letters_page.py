"""The page about dead letters: every command on it, run in order, says what the page says it says."""

from __future__ import annotations

import asyncio
import re
import shlex
from pathlib import Path
from typing import Any  # header values

import pytest

from tests.support.commands import penstock_here
from tests.support.letters import AUDIT, DEAD, WORK
from tests.support.processes import ROOT
from tests.support.working import empty, foreign, put

PAGE = ROOT / "docs" / "dead-letters.md"

_BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
#: What is another each time and on each machine.
_CHANGING = (
    (re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"), "2026-03-02T03:14:07.000+00:00"),
    (re.compile(r"[\w.-]+@[\w.-]+ as \w+"), "ada@ops-1 as operator"),
)

_TRACEBACK = """Traceback (most recent call last):
  File "/app/services/mailer/handlers.py", line 34, in send_email
    await self._post.send(await self._written(job), self._sender, job.args.to)
  File "/app/services/mailer/smtp.py", line 97, in send
    await self._send(mail, sender, recipient)
  File "/app/services/mailer/smtp.py", line 130, in _deliver
    raise (_Closing(str(found)) if closing and isinstance(found, TooMuch) else found) from error
services.mailer.ports.NotNow: 452 4.2.2 mailbox of user 17 is full
"""
_BEGAN = 1_772_420_000_000


async def bury(url: str) -> None:
    """The letters that the page tells of."""
    for user, minute in ((17, 0), (23, 4), (90210, 9)):
        await _letter(
            url,
            f"order-{user}",
            f'{{"to": "user{user}@example.org", "template": "welcome", "context": {{"api_key": "k-{user}"}}}}',
            minute,
            {
                "penstock-reason": "exhausted",
                "penstock-attempt": 4,
                "penstock-copy": 4,
                "penstock-error-type": "services.mailer.ports.NotNow",
                "penstock-error": f"452 4.2.2 mailbox of user {user} is full",
                "penstock-traceback": _TRACEBACK,
                "tenant": "acme",
            },
        )
    wrong = {
        "penstock-reason": "schema",
        "penstock-copy": 1,
        "penstock-error-type": "penstock.errors.SchemaError",
        "penstock-error": "the arguments do not fit email.send: to: must be a plain address such as ada@example.org",
    }
    await _letter(url, "order-90", '{"to": "ada at example.org", "template": "welcome"}', 12, wrong)
    unbound = {"penstock-reason": "unbound-kind", "penstock-error": "jobs.email does not take report.daily"}
    await _letter(url, "report-1", "{}", 13, unbound, kind="report.daily")


async def _letter(
    url: str, job_id: str, args: str, minute: int, story: dict[str, Any], kind: str = "email.send"
) -> None:
    died = {"penstock-died": _BEGAN + minute * 60_000, "penstock-worker": "mailer@web-2:4711"}
    async with foreign(url) as channel:
        await put(channel, WORK, args.encode(), "jobs.dead", message_id=job_id, type=kind, headers={**story, **died})


def answered(block: str, url: str, folder: Path) -> str:
    """*block* with what its commands say."""
    lines: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            done = penstock_here(*shlex.split(line)[2:], RABBITMQ_URL=url)
            assert done.code == 0, (line, done.err)
            lines += [line, *done.out.replace(f"{folder}/", "").splitlines()]
    return steady("\n".join(lines) + "\n")


def steady(text: str) -> str:
    """*text* with what changes each time replaced."""
    for changing, steady in _CHANGING:
        text = changing.sub(steady, text)
    return text


async def run_page(url: str, folder: Path) -> tuple[str, str]:
    """The page's console blocks, and what they should be."""
    await empty(url, WORK, DEAD, AUDIT)
    await bury(url)
    blocks = _BLOCK.findall(PAGE.read_text())
    return "\n".join(map(steady, blocks)), "\n".join(
        [await asyncio.to_thread(answered, block, url, folder) for block in blocks]
    )


async def test_the_page_says_what_the_commands_say(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written, said = await run_page(url, tmp_path)
    assert written == said
