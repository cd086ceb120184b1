"""The processes of the demo: ordinary ones, each with a log of its own, and none of them outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock import PenstockError
from penstock.testing.broker_process import tied_to_parent

#: Where the packages are, so that ``-m services.…`` is found from anywhere.
ROOT = Path(__file__).parents[2]


class MemberDied(PenstockError):
    """A process of the demo ended by itself."""


@dataclass(frozen=True, slots=True)
class Member:
    """One process."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid


class Crew:
    """Starts processes with *environment*, logs to *folder*, and ends them all with the block, however that ends."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._members: list[Member] = []
        self._ending: set[Member] = set()

    async def start(
        self,
        name: str,
        *arguments: str,
        program: str = sys.executable,
        inherit: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Member:
        """Start *program* (this Python) with *arguments*, the file descriptors *inherit* and more *environment*."""
        log = self._folder / f"{name}.log"
        with log.open("ab") as said:
            process = await asyncio.create_subprocess_exec(
                *tied_to_parent([program, *arguments]),
                cwd=ROOT,
                env=os.environ | self._environment | dict(environment or {}),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                pass_fds=inherit,
                start_new_session=True,  # Ctrl-C is for the demo, which then ends them in order
            )
        member = Member(name, process, log)
        self._members.append(member)
        return member

    async def run(self, name: str, *arguments: str) -> tuple[int, Path]:
        """Start this Python with *arguments* and wait for its end: its exit code and its log."""
        member = await self.start(name, *arguments)
        self._ending.add(member)
        return await member.process.wait(), member.log

    async def kill(self, member: Member) -> None:
        """End *member* as a crash would."""
        self._members.remove(member)
        member.process.kill()
        await member.process.wait()

    async def stop(self, *members: Member, within: float) -> None:
        """Ask *members* to end and wait for it; who is not gone *within* seconds is killed. Idempotent."""
        for member in members:
            _send(member, signal.SIGTERM)
        gone = asyncio.gather(*(member.process.wait() for member in members))
        try:
            async with asyncio.timeout(within):
                await gone
        except TimeoutError:
            for member in members:
                _send(member, signal.SIGKILL)
                await member.process.wait()
        self._members = [member for member in self._members if member not in members]

    def check(self) -> None:
        """Raise ``MemberDied`` when a process ended though not asked to, ``CancelledError`` when we are to end."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Until Python 3.12 wait_for loses a cancellation that meets a result: https://bugs.python.org/issue37658
            raise asyncio.CancelledError
        for member in self._members:
            if member.process.returncode is not None and member not in self._ending:
                raise MemberDied(f"{member.name} ended with exit code {member.process.returncode}: see {member.log}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Shielded: a second Ctrl-C must not leave anybody behind.
        await asyncio.shield(self.stop(*self._members, within=5 if error is None else 2))


def _send(member: Member, number: signal.Signals) -> None:
    if member.process.returncode is None:
        member.process.send_signal(number)
