"""The examples of docs/web-requests.md, served as a reader serves them, over a real broker."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.testing.free_ports import free_ports
from tests.support.intake import Said, head, intake_process
from tests.support.processes import ROOT
from tests.support.scrapes import asked
from tests.support.waiting import eventually
from tests.support.working import LEVELS, empty, foreign, take, take_all

pytestmark = pytest.mark.timeout(120)

PAGE = (ROOT / "docs" / "web-requests.md").read_text()

#: How each example is served on a port.
SERVED = {
    "wsgi": "from wsgiref.simple_server import make_server; import wsgi_shop, sys; "
    "make_server('127.0.0.1', int(sys.argv[1]), wsgi_shop.app).serve_forever()",
    "async": "import uvicorn, async_shop, sys; uvicorn.run(async_shop.app, port=int(sys.argv[1]))",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    files = dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    assert files.keys() == {"shop_jobs.py", "wsgi_shop.py", "async_shop.py"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@contextmanager
def served(how: str, folder: Path, url: str) -> Iterator[int]:
    """The example on a free port; gone after the block."""
    [port] = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVED[how], str(port)],
        cwd=folder,
        env={**os.environ, "RABBITMQ_URL": url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("how", SERVED)
async def test_an_example_publishes_and_answers_for_the_broker(how: str, url: str, folder: Path) -> None:
    await empty(url, "jobs.email")
    with served(how, folder, url) as port:
        said = await answer(port, 202)
    assert (said.status, said.text.strip('"')) == (202, "welcome:ada@example.org")
    async with foreign(url) as channel:
        message = await take(channel, "jobs.email")
    assert (message.message_id, message.app_id) == ("welcome:ada@example.org", "shop")


async def test_the_blocking_example_says_when_the_broker_is_away(folder: Path) -> None:
    [nowhere] = free_ports(1)
    with served("wsgi", folder, f"amqp://127.0.0.1:{nowhere}") as port:
        said = await answer(port, 503)
    assert (said.status, said.headers["retry-after"]) == (503, "5")


async def answer(port: int, status: int) -> Said:
    """What the example answers with *status*, once it listens: on a busy machine, the first time may take too long."""
    request = head("POST", "/welcome?to=ada@example.org", {"host": "localhost", "connection": "close"})

    async def said() -> Said | None:
        try:
            page = await asked(port, request)
        except OSError:
            return None
        return Said(page.status, page.headers, page.body) if page.status == status else None

    found = await eventually(said, within=40)
    assert found is not None
    return found


async def test_the_line_for_those_who_speak_only_http_is_answered_as_it_says(url: str, tmp_path: Path) -> None:
    [command] = re.findall(r"^```sh\n(curl .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    await empty(url, "jobs.email", *LEVELS)
    with intake_process(url, tmp_path) as intake:
        line = command.replace("localhost:8080", f"localhost:{intake.port}").replace("curl", "curl -s --noproxy '*'")
        done = await asyncio.to_thread(subprocess.run, ["sh", "-c", line], capture_output=True, timeout=30, check=True)
    [shown] = re.findall(r"^```json\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)
    assert done.stdout.decode() == shown
    assert uuid.UUID(shown[7:43]).version == 8
    async with foreign(url) as channel:  # which empties them, too
        assert sum([len(await take_all(channel, level)) for level in LEVELS]) == 1
