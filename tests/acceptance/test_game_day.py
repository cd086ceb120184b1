"""The runbook's game day as a newcomer plays it: every command is the runbook's own, on the system of ``make up``."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.rules import ROOT, sections
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(480)

UP = 180.0
PLAYED = 240.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what a clone has once everything is installed."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "rabbitmq").symlink_to(ROOT / "rabbitmq")
    return tmp_path


@asynccontextmanager
async def up(folder: Path) -> AsyncIterator[str]:
    """The system of ``make up``, with alerts that come sooner: the line of the environment that it prints."""
    output = folder / "up.log"
    with output.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            *(".venv/bin/python", "-m", "services.demo", "--up", "--pace", "30"),
            cwd=folder,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(folder), "COLUMNS": "10000"},
            stdout=said,
            stderr=said,
        )
    try:

        def exported() -> str:
            assert process.returncode is None, output.read_text()
            found = re.search(r"^ *(export RABBITMQ_URL_FILE=.*)$", output.read_text(), re.MULTILINE)
            return found[1] if found and "Logs  " in output.read_text() else ""

        yield await eventually(exported, UP)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


async def test_a_newcomer_gets_the_alert_finds_the_cause_and_mends_it(folder: Path) -> None:
    blocks = re.findall(r"```sh\n(.*?)```", sections()["game-day"], re.DOTALL)
    assert len(blocks) == 5
    async with up(folder) as environment:
        script = "\n".join(["set -eux -o pipefail", environment, *blocks])
        played = await asyncio.create_subprocess_exec(
            *("timeout", str(PLAYED), "bash", "-c", script),
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said = (await played.communicate())[0].decode()
    assert played.returncode == 0, said
    assert "550" in said, said
    assert "[FIRING] PenstockDeadLetters jobs.email.dead" in said
    assert "[RESOLVED] PenstockDeadLetters jobs.email.dead" in said
