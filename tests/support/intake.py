"""The intake as a real process under a test, and a client that can also say what no proper client would."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tests.support.processes import ROOT
from tests.support.scrapes import connected, parsed
from tests.support.waiting import wait_until

WELCOME = {"to": "ada@example.org", "template": "welcome", "values": {"name": "Ada"}}


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of the intake."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """Its body."""
        return orjson.loads(self.text)

    @property
    def problem(self) -> str:
        """The last word of a problem's type."""
        assert self.headers["content-type"] == "application/problem+json", self
        assert self.json["status"] == self.status
        return str(self.json["type"].rpartition(":")[2])


class Intake:
    """A running ``python -m services.intake``."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._logged("serving")

    @property
    def metrics_port(self) -> int:
        """Where it shows its metrics."""
        return self._logged("serving metrics")

    def _logged(self, event: str) -> int:
        whole = self.log.read_bytes().rpartition(b"\n")[0]
        lines = [orjson.loads(line) for line in whole.splitlines() if line.startswith(b'{"')]
        ports = [int(line["port"]) for line in lines if line["event"] == event]
        return ports[0] if ports else 0

    async def ask(self, method: str, path: str, value: Any = None, **headers: str) -> Said:
        """One request, with *value* as JSON, or as it is where it is bytes; in names of *headers*, ``_`` is ``-``."""
        content = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        told = {"host": "localhost", "connection": "close"}
        if method == "POST":
            told |= {"content-type": "application/json", "content-length": str(len(content))}
        told |= {name.replace("_", "-"): text for name, text in headers.items()}
        return await self.say(head(method, path, told) + content)

    async def say(self, request: bytes, within: float = 60.0) -> Said:
        """Write *request*, whatever it is, and read until the other side hangs up."""
        async with asyncio.timeout(within), connected(self.port) as (reader, writer):
            writer.write(request)
            page = parsed(await reader.read())
        return Said(page.status, page.headers, page.body)

    def stop(self, within: float = 30.0) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)


def head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


@contextmanager
def intake_process(url: str, folder: Path, **settings: str) -> Iterator[Intake]:
    """The intake on a free port of this machine, connected to the broker at *url*; gone after the block."""
    with listening_intake(url, folder, **settings) as intake:
        wait_until(lambda: b'"connected"' in intake.log.read_bytes() or _ended(intake), within=40)
        assert not _ended(intake), intake.log.read_text()
        yield intake


@contextmanager
def listening_intake(url: str, folder: Path, **settings: str) -> Iterator[Intake]:
    """The same as soon as it listens, connected or not."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "intake.log"
    own = {"RABBITMQ_URL": url, "INTAKE_PORT": "0", "PENSTOCK_METRICS_PORT": "0"}
    own |= {"INTAKE_REQUEST_TIMEOUT": "60s", "INTAKE_PUBLISH_TIMEOUT": "30s"}  # a busy machine is no slow client
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "INTAKE_"))}
    command = [sys.executable, "-m", "services.intake"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**kept, **own, **settings}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    intake = Intake(process, log)
    try:
        wait_until(lambda: intake.port or _ended(intake), within=40)
        assert not _ended(intake), f"the intake ended at its start:\n{log.read_text()}"
        yield intake
    finally:
        process.kill()
        process.wait()


def _ended(intake: Intake) -> bool:
    return intake.process.poll() is not None
