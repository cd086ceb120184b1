"""The intake as a real process under a test, and a client that can also say what no proper client would."""

from __future__ import annotations

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
        self.token: str | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._logged("serving")

    @property
    def metrics_port(self) -> int:
        """Where it shows its metrics."""
        return self._logged("serving metrics")

    def _logged(self, event: str) -> int:
        lines = [orjson.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]
        ports = [int(line["port"]) for line in lines if line["event"] == event]
        return ports[0] if ports else 0

    async def ask(
        self,
        method: str,
        path: str,
        value: Any = None,
        *,
        body: bytes | None = None,
        within: float = 20.0,
        **headers: str,
    ) -> Said:
        """One request, *value* as JSON or *body* as it is; in names of *headers*, ``_`` stands for ``-``."""
        content = body if body is not None else b"" if value is None else orjson.dumps(value)
        told = {"host": "localhost", "connection": "close"}
        if method == "POST":
            told |= {"content-type": "application/json", "content-length": str(len(content))}
        if self.token is not None:
            told["authorization"] = f"Bearer {self.token}"
        told |= {name.replace("_", "-"): text for name, text in headers.items()}
        return await self.say(head(method, path, told) + content, within)

    async def say(self, request: bytes, within: float = 20.0) -> Said:
        """Write *request*, whatever it is, and read until the other side hangs up."""
        import asyncio

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
def intake_process(url: str, folder: Path, *, connected: bool = True, **settings: str) -> Iterator[Intake]:
    """The intake on a free port of this machine, connected to the broker at *url*; gone after the block."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "intake.log"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "INTAKE_"))},
        "RABBITMQ_URL": url,
        "INTAKE_PORT": "0",
        "PENSTOCK_METRICS_PORT": "0",
        **settings,
    }
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.intake"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    intake = Intake(process, log)
    try:
        wait_until(lambda: intake.port or process.poll() is not None, within=40)
        if connected:
            wait_until(lambda: b'"connected"' in log.read_bytes() or process.poll() is not None, within=40)
        assert process.poll() is None, f"the intake ended at its start:\n{log.read_text()}"
        yield intake
    finally:
        process.kill()
        process.wait()
