"""Workers as real processes under a test: started, signalled, killed, and started again when they die."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.apps import EFFECTS, Ledger
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


def alive(pid: int) -> bool:
    """Whether a process of that number runs: one that has ended and was not asked about yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


class WorkerProcess:
    """``penstock worker tests.support.apps:build`` on the broker at *url*, with its files in *folder*."""

    def __init__(
        self, url: str, folder: Path, *, factory: str = "build", module: str = "tests.support.apps", **settings: str
    ) -> None:
        self.ledger = Ledger(folder / "effects")
        self.log = folder / "worker.log"
        self.pid = 0
        self._command = [sys.executable, "-m", "penstock", "worker", f"{module}:{factory}"]
        self._environment = {
            **os.environ,
            "RABBITMQ_URL": url,
            "PENSTOCK_TOPOLOGY": str(folder / "none.yaml"),
            EFFECTS: str(self.ledger.path),
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and return once it consumes."""
        self._process = self._spawn()
        pid = self.pid = self._process.pid
        await eventually(lambda: self._consuming(pid), within=30)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _consuming(self, pid: int) -> bool:
        running = self.running  # asked first: it may consume and be killed by a job at once
        consuming = any(effect.pid == pid for effect in self.ledger.read("consuming"))
        assert running or consuming, f"the worker ended at its start:\n{self.log.read_text()}"
        return consuming

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.running:
            os.kill(self.pid, number)

    async def ended(self, within: float = 20.0) -> int:
        """Wait for its end; its exit code (negative: the signal that killed it)."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, within)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        self.signal(signal.SIGKILL)
        await self.ended()


@asynccontextmanager
async def worker_process(url: str, folder: Path, **settings: str) -> AsyncIterator[WorkerProcess]:
    """A worker process that consumes; it is gone after the block, however that ends."""
    worker = WorkerProcess(url, folder, **settings)
    try:
        await worker.start()
        yield worker
    finally:
        if worker.pid:
            await worker.kill()
