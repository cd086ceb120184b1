"""The program of a child process: rebuild the handlers, then run one delivery after another for the worker."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

from penstock import factory, logs, telemetry, tracing
from penstock.claiming import Claiming, StoreTerms
from penstock.clock import SystemClock
from penstock.connect import store_for
from penstock.errors import PenstockError
from penstock.events import Events
from penstock.execution import Execution
from penstock.reconnecting import CONNECT_TIMEOUT
from penstock.runners import wire
from penstock.runners.in_process import calls
from penstock.settings import Settings
from penstock.worker import Worker

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """``python -m penstock.child MODULE:FACTORY FD``: serve the worker at the other end of *FD* until it hangs up."""
    target, fd = sys.argv[1:]
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.setup(Settings.load())
    try:
        asyncio.run(_serve(target, socket.socket(fileno=int(fd))))
    except PenstockError as error:
        sys.exit(f"a child cannot start: {error}")


async def _serve(target: str, pipe: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=pipe)
    async with factory.opened(target) as worker, AsyncExitStack() as stack:
        telemetry.setup(worker.queue)
        claiming = None
        if worker.needs_store:
            claiming = Claiming(store_for(connections=1), worker.queue, StoreTerms(), Events())
            await stack.enter_async_context(claiming.opened(CONNECT_TIMEOUT))
        threads = stack.enter_context(ThreadPoolExecutor(1, "handler"))
        execution = _execution(worker, threads, claiming)
        writer.write(wire.frame({"ready": True}))
        await _loop(execution, claiming, reader, writer)


async def _loop(
    execution: Execution, claiming: Claiming | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One delivery at a time. When the worker hangs up, nobody waits for the answer: end at once."""
    while True:
        try:
            values = await wire.read(reader)
        except asyncio.IncompleteReadError:
            tracing.flush()
            os._exit(0)
        delivery, memory, claim, trace = wire.unpack_delivery(values)
        _cap(memory)
        if claiming is not None and claim is not None:
            claiming.hold(claim)
        token = tracing.adopt(trace)
        outcome = await execution.run(delivery, claim)
        tracing.leave(token)
        writer.write(wire.frame(wire.pack_outcome(outcome)))
        await writer.drain()


def _execution(worker: Worker, threads: ThreadPoolExecutor, claiming: Claiming | None) -> Execution:
    run = calls(worker.handlers, worker.middleware, threads, claiming, deadlines=False)
    return Execution(worker.handlers, run, worker.limits, SystemClock(), Events(), claiming=claiming, traced=False)


def _cap(memory: int | None) -> None:
    """Let the process address at most *memory* bytes during this run (soft limit, so the next run can differ), and no
    more than its machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = float("inf") if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_AS, (hard if memory is None or memory > most else memory, hard))


def _die_with_parent() -> None:
    """On Linux, be killed when the worker is: a SIGKILLed worker cannot tell its children."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
