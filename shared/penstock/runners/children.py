"""Child processes that run one job at a time: killed at the deadline, capped in memory, replaced when they die."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from dataclasses import dataclass

from penstock import tracing
from penstock.claims import Claim
from penstock.errors import JobCrashed, JobTimeout, PenstockError
from penstock.handlers import DEFAULT_TIMEOUT, Handler
from penstock.message import Delivery
from penstock.outcome import Outcome
from penstock.runners import wire

#: Seconds a child may take to start and import the factory, and jobs it runs before it is replaced (leaks end with it).
_START = 60.0
_JOBS_PER_CHILD = 1000


class ChildNotStarted(PenstockError):
    """No child process could be started: no fault of the job, which is tried again."""


@dataclass(slots=True, eq=False)
class _Child:
    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    jobs: int = 0

    async def kill(self) -> None:
        """End the child and everything it started, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.writer.close()
        await self.process.wait()


class ChildProcesses:
    """Runs deliveries in children that rebuild the handlers from *factory* (``MODULE:FACTORY``). One event loop."""

    def __init__(self, factory: str) -> None:
        self._factory = factory
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()

    async def run(self, delivery: Delivery, handler: Handler, *, alone: bool, claim: Claim | None = None) -> Outcome:
        """Run *delivery*, which *claim* covers, in an idle child, or *alone* in a fresh one that ends with it.

        Raises ``JobTimeout`` when the child had to be killed at the handler's deadline, ``JobCrashed`` when it died,
        ``ChildNotStarted`` when there was none.
        """
        child = None if alone else self._idle_one()
        child = child or await self._start()
        keep = False
        try:
            outcome = await self._run(child, delivery, handler, claim)
            keep = not alone and child.jobs < _JOBS_PER_CHILD
            return outcome
        finally:
            if keep:
                self._idle.append(child)
            else:
                await asyncio.shield(self._end(child))

    async def close(self) -> None:
        """Kill every child. Idempotent."""
        await asyncio.gather(*(self._end(child) for child in list(self._all)))

    def _idle_one(self) -> _Child | None:
        """A child that waits for work, if there is one; those that died waiting (no memory) are forgotten."""
        while self._idle:
            child = self._idle.pop()
            if child.process.returncode is None:
                return child
            child.writer.close()
            self._all.discard(child)
        return None

    async def _run(self, child: _Child, delivery: Delivery, handler: Handler, claim: Claim | None) -> Outcome:
        seconds = (handler.timeout or DEFAULT_TIMEOUT).total_seconds()
        child.jobs += 1
        try:
            async with asyncio.timeout(seconds):
                packed = wire.pack_delivery(delivery, handler.memory, claim, tracing.carrier())
                child.writer.write(wire.frame(packed))
                await child.writer.drain()
                return wire.unpack_outcome(await wire.read(child.reader))
        except TimeoutError:
            raise JobTimeout(f"{handler.kind.name} ran past its deadline of {seconds:g} s and was killed") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise JobCrashed(f"the child process that ran {handler.kind.name} {await _death(child)}") from None

    async def _start(self) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await self._spawn(theirs)
            except OSError as error:
                ours.close()
                raise ChildNotStarted(f"no process for a child of {self._factory}: {error.strerror}") from error
        reader, writer = await asyncio.open_connection(sock=ours)
        child = _Child(process, reader, writer)
        self._all.add(child)
        try:
            async with asyncio.timeout(_START):
                await wire.read(reader)
        except TimeoutError:
            raise await self._not_started(child, f"did not start within {_START:g} s") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise await self._not_started(child, await _death(child)) from None
        except BaseException:
            await asyncio.shield(self._end(child))
            raise
        return child

    async def _spawn(self, pipe: socket.socket) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penstock.child",
            self._factory,
            str(pipe.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(pipe.fileno(),),
            # A session of its own: Ctrl-C reaches the worker alone, and a kill reaches what the handler started.
            start_new_session=True,
        )

    async def _not_started(self, child: _Child, death: str) -> ChildNotStarted:
        await self._end(child)
        return ChildNotStarted(f"a child for {self._factory} {death}; its own words are in the log")

    async def _end(self, child: _Child) -> None:
        self._all.discard(child)
        await child.kill()


async def _death(child: _Child) -> str:
    """How the child died, in words. The pipe closes a moment before the process is gone."""
    try:
        async with asyncio.timeout(5):
            code = await child.process.wait()
    except TimeoutError:
        return "closed its pipe and went on"
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was killed by signal {signal.Signals(-code).name}"
