"""Whether the workers that are named can do their work: handlers, deadlines, and the store's memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any  # arguments and policies are AMQP values

from penstock import factory
from penstock.connect import store_for
from penstock.doctor.findings import Finding, failed, unseen, well, wrong
from penstock.errors import ConfigError, PenstockError
from penstock.settings import Settings
from penstock.storing import Store
from penstock.topology.live import Live
from penstock.topology.names import work_queue
from penstock.worker import CONSUMER_TIMEOUT, Worker
from penstock.worker_process import adjust


async def check(target: str, settings: Settings, live: Live | None) -> tuple[list[Finding], bool]:
    """Build the worker of *target* and compare it with its queue on the broker; and whether it needs a store."""
    name = f"worker {target}"
    try:
        async with factory.opened(target) as worker:
            adjust(worker, settings)
            found = [*_own_problems(name, target, worker, settings), *_against_broker(name, worker, live)]
            return found or [well(name, _all_is_well(worker, live))], worker.needs_store
    except PenstockError as error:
        return failed(name, error), False
    except Exception as error:  # noqa: BLE001 - the factory is foreign code, and whatever it raises is the finding
        return [wrong(name, f"cannot be built: {type(error).__name__}: {error}", "mend its factory")], False


def _own_problems(name: str, target: str, worker: Worker, settings: Settings) -> Iterator[Finding]:
    try:
        worker.check(target, _store(worker, settings), settings.store_terms)
    except ConfigError as error:
        for problem in error.problems:
            yield wrong(name, problem, "change the handler, or the setting that is named")


def _store(worker: Worker, settings: Settings) -> Store | None:
    return store_for(settings.store) if worker.needs_store else None


def _against_broker(name: str, worker: Worker, live: Live | None) -> Iterator[Finding]:
    if live is None:
        return
    queue = work_queue(worker.queue)
    if queue not in live.queues:
        yield wrong(name, f"queue {queue} is missing on the broker", "penstock topology apply")
        return
    known = _consumer_timeout(queue, live)
    for handler in worker.handlers:
        held = worker.held_at_most(handler)
        # What goes beyond the worker's own idea of it is told by its own check.
        if held is None or not (known or CONSUMER_TIMEOUT) <= held < worker.consumer_timeout:
            continue
        words = f"{handler.kind.name} may hold a delivery for {held}"
        if known is None:
            yield unseen(
                name, f"{words}: only well where consumer_timeout in rabbitmq.conf is above, which is not shown"
            )
        else:
            words += f", and the consumer timeout of {queue} is {known}: the job would run twice"
            yield wrong(name, words, "shorten its timeout, or raise consumer_timeout of the queue in topology.yaml")


def _consumer_timeout(queue: str, live: Live) -> timedelta | None:
    """The least that the queue's argument and policies say. What ``rabbitmq.conf`` says cannot be asked for."""
    declared, found = live.queues[queue]
    values: list[Any] = [declared.arguments.get("x-consumer-timeout")]
    values += [policy.definition.get("consumer-timeout") for policy in found.policies]
    known = [value for value in values if type(value) is int]
    return timedelta(milliseconds=min(known)) if known else None


def _all_is_well(worker: Worker, live: Live | None) -> str:
    held = [span for handler in worker.handlers if (span := worker.held_at_most(handler)) is not None]
    longest = f", deliveries are held for {max(held)} at most" if held else ", no handler has a deadline"
    beside = "" if live is not None else "; not compared with the broker"
    return f"{len(worker.handlers)} kinds on {work_queue(worker.queue)}{longest}{beside}"
