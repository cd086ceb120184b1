"""A worker to be run as a real process: what its jobs do is said in their arguments, and every effect is a line.

``penstock worker tests.support.apps:build``. The file named by ``PENSTOCK_TEST_EFFECTS`` gains one line for each run of
a handler, written at once, so that an effect made twice shows, whatever happened to the process in between.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from penstock import Event, Handlers, Job, JobKind, Reject, RetryPolicy, Worker
from penstock.events import ConsumingStarted

EFFECTS = "PENSTOCK_TEST_EFFECTS"


@dataclass
class Do:
    """What a job is to do, and with what."""

    do: str = "nothing"
    text: str = ""
    gate: str = ""
    fail_attempts: int = 0
    pause: float = 0.0


@dataclass(frozen=True)
class Effect:
    """One line of the file of effects; *at* is the machine's monotonic time."""

    word: str
    job: str
    attempt: int
    pid: int
    at: float


@dataclass
class Ledger:
    """The file of effects, as its writers and its readers see it."""

    path: Path = field(default_factory=lambda: Path(os.environ[EFFECTS]))

    def write(self, word: str, job: Job[Any] | None = None) -> None:
        """Append a line; one write call, so that lines of several processes never mix."""
        line = f"{word} {job.id if job else '-'} {job.attempt if job else 0} {os.getpid()} {time.monotonic()}\n"
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(handle, line.encode())
        os.close(handle)

    def read(self, word: str | None = None) -> list[Effect]:
        """Every line so far, or those that begin with *word*."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        effects = [Effect(w, job, int(n), int(pid), float(at)) for w, job, n, pid, at in map(str.split, lines)]
        return [effect for effect in effects if word in (None, effect.word)]


QUICK = RetryPolicy(max_attempts=3, first=timedelta(seconds=1), factor=1)
#: A job that fails is not seen again before the test is over.
MUCH_LATER = RetryPolicy(max_attempts=3, first=timedelta(hours=1))
ASYNC = JobKind("email.async", Do)
THREAD = JobKind("email.thread", Do)
CHILD = JobKind("email.child", Do)
CAPPED = JobKind("email.capped", Do)
#: Bytes that a run of it may address.
CAP = 512 * 1024 * 1024

handlers = Handlers()


@handlers.on(ASYNC, retry=QUICK)
async def in_the_loop(job: Job[Do]) -> object:
    """Do it on the event loop."""
    if job.args.gate:
        Ledger().write("begun", job)
        while not _is_open(job):  # noqa: ASYNC110 - the gate is opened by another process
            await asyncio.sleep(0.02)
    await asyncio.sleep(job.args.pause)
    return _done(job)


@handlers.on(THREAD, retry=QUICK)
def in_a_thread(job: Job[Do]) -> object:
    """Do it in a thread."""
    if job.args.gate:
        Ledger().write("begun", job)
        while not _is_open(job):
            time.sleep(0.02)
    return _done(job)


@handlers.on(CHILD, retry=MUCH_LATER, timeout=timedelta(seconds=8), isolation="process")
def in_a_child(job: Job[Do]) -> object:
    """Do it in a child process."""
    return _done(job)


@handlers.on(CAPPED, retry=MUCH_LATER, isolation="process", memory=CAP)
async def in_a_capped_child(job: Job[Do]) -> object:
    """Do it on the event loop of a child process that has a memory cap."""
    return _done(job)


def build() -> Worker:
    """A worker for all of it."""
    worker = Worker(handlers, queue="email", slots=4, unknown_kind_grace=timedelta(seconds=2))
    worker.events.subscribe(_tell)
    return worker


def _tell(event: Event) -> None:
    if isinstance(event, ConsumingStarted):
        Ledger().write("consuming")


def _is_open(job: Job[Do]) -> bool:
    return Path(job.args.gate).exists()


def _done(job: Job[Do]) -> object:
    if job.attempt <= job.args.fail_attempts:
        Ledger().write("failed", job)
        raise OSError(f"attempt {job.attempt} fails")
    result = _DEEDS[job.args.do](job)
    Ledger().write("done", job)
    return result


def _nothing(_: Job[Do]) -> None: ...


def _log(job: Job[Do]) -> None:
    logging.getLogger("apps").warning(job.args.text)


def _answer(job: Job[Do]) -> dict[str, Any]:
    return {"text": job.args.text, "pid": os.getpid(), "thread": threading.current_thread().name}


def _raise(job: Job[Do]) -> None:
    raise ValueError(job.args.text)


def _reject(job: Job[Do]) -> None:
    raise Reject(job.args.text or "never")


def _leave(_: Job[Do]) -> None:
    raise SystemExit(5)


def _die(_: Job[Do]) -> None:
    os._exit(3)


def _crash(_: Job[Do]) -> None:
    ctypes.string_at(0)


def _hang(job: Job[Do]) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(job.args.text).write_text(str(child.pid))
    threading.Event().wait(600)


def _devour(_: Job[Do]) -> int:
    return len(bytearray(2 * 1024 * 1024 * 1024))


def _kill_self(_: Job[Do]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


_DEEDS: dict[str, Callable[[Job[Do]], object]] = {
    "nothing": _nothing,
    "log": _log,
    "answer": _answer,
    "raise": _raise,
    "reject": _reject,
    "leave": _leave,
    "die": _die,
    "crash": _crash,
    "hang": _hang,
    "devour": _devour,
    "kill": _kill_self,
}
