"""A worker as a process: from its factory to its exit code, stopped by signals."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

import structlog

from penstock import __version__, factory, health, telemetry
from penstock.connect import broker_for, store_for
from penstock.errors import ConfigError
from penstock.event_log import subscribe
from penstock.events import ConsumingStarted, Event
from penstock.parent import Tie
from penstock.readiness import Readiness
from penstock.serving import loop_factory
from penstock.settings import Settings
from penstock.storing import Store
from penstock.topology.names import work_queue
from penstock.topology.reading import read_spec
from penstock.topology.spec import Spec
from penstock.worker import Worker

_log = structlog.stdlib.get_logger("penstock")


def work(target: str, settings: Settings) -> int:
    """Run the worker that *target* (``MODULE:FACTORY``) builds until a signal, in this thread, the main one.

    The first SIGTERM or SIGINT drains, the second stops now. Returns 0 after a clean stop. When jobs were left
    unfinished the process ends here with 1, for the threads of their handlers cannot be waited for. Raises
    ``PenstockError`` for what keeps the worker from starting.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        clean = runner.run(_work(target, settings))
        if not clean:
            _leave(1)
    return 0


async def _work(target: str, settings: Settings) -> bool:
    url = settings.broker_url
    async with factory.opened(target) as worker:
        adjust(worker, settings)
        telemetry.setup(worker.queue)
        lines = subscribe(worker.events)
        stopping = _Stopping(worker)
        kinds = [handler.kind.name for handler in worker.handlers]
        _log.info(
            "starting", version=__version__, queue=worker.queue, slots=worker.slots, kinds=kinds, broker=url.masked
        )
        readiness = Readiness(worker.connections, work_queue(worker.queue))
        try:
            async with health.served(settings, worker.events, readiness, "worker"):
                running = worker.run(
                    broker_for(url),
                    stop=stopping.stop,
                    connect_timeout=settings.connect_timeout,
                    drain_timeout=settings.drain_timeout,
                    factory=target,
                    store=await _store(worker, settings),
                    terms=settings.store_terms,
                )
                clean = await stopping.obeyed_by(asyncio.create_task(running))
        finally:
            lines.close()
        _log.info("stopped", clean=clean)
        return clean


async def _store(worker: Worker, settings: Settings) -> Store | None:
    """The store of a worker that needs one. Raises ``ConfigError`` for one not to be trusted in production."""
    if not worker.needs_store:
        return None
    where = settings.store
    store = store_for(where, connections=worker.slots, retention=settings.store_retention)
    if settings.production:
        problems = await store.production_problems()
        if where.scheme == "sqlite":
            from penstock import one_host  # an HTTP client, which no other worker needs

            problems += one_host.problems(worker.queue, settings.broker_url)
        if problems:
            raise ConfigError(*problems)
    if settings.store_migrate:
        await store.migrate()
    return store


def adjust(worker: Worker, settings: Settings) -> None:
    """Let settings change what the factory built: slots, and the kinds by the topology where it is at hand.

    Raises ``ConfigError`` when the topology does not know the worker's queue.
    """
    if settings.slots is not None:
        worker.slots = settings.slots
    if worker.limits.binds is None and settings.topology.exists():
        worker.limit_to(_patterns(read_spec(settings.topology), worker.queue, settings))


def _patterns(spec: Spec, queue: str, settings: Settings) -> list[str]:
    for known in spec.queues:
        if known.name == queue:
            return list(spec.patterns_of(known))
    names = ", ".join(known.name for known in spec.queues)
    raise ConfigError(
        f"{settings.topology} has no queue {queue!r}: add it there, or let the worker name one of {names}"
    )


class _Stopping:
    """What signals do to a worker. One event loop, in the main thread."""

    def __init__(self, worker: Worker) -> None:
        self.stop = asyncio.Event()
        self._worker = worker
        self._task: asyncio.Task[bool] | None = None
        self._consuming = False
        worker.events.subscribe(self._saw, ConsumingStarted)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        self._tie = Tie()
        self._tie.watch(lambda: loop.call_soon_threadsafe(self._on_signal))

    async def obeyed_by(self, task: asyncio.Task[bool]) -> bool:
        """The result of *task*; one that is stopped before it ever consumed has nothing to drain."""
        self._task = task
        await asyncio.wait([task])
        return True if task.cancelled() else task.result()

    def _saw(self, _: Event) -> None:
        self._consuming = True
        self._tie.ready()

    def _on_signal(self) -> None:
        if self.stop.is_set():
            _log.warning("stopping now: unfinished jobs go back to the queue")
            self._worker.stop_now()
            return
        self.stop.set()
        if self._consuming:
            _log.info("stopping: running jobs may end; signal again to stop now")
        elif self._task is not None:
            _log.info("stopping before the first job")
            self._task.cancel()


def _leave(code: int) -> None:
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
