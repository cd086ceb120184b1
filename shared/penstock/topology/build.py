"""From what a team writes down to everything that must exist on the broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any  # queue arguments are AMQP values

from penstock.delay import ANY_DELAY, NO_LIMIT, cascade
from penstock.topology.model import Binding, Exchange, Queue, Topology
from penstock.topology.names import (
    AUDIT,
    DEAD,
    DELIVER,
    JOBS,
    SCHEDULER,
    SCHEDULER_VIEW,
    STATE_KEY,
    UNROUTED,
    dead_queue,
    work_queue,
)
from penstock.topology.spec import QueueSpec, Spec

#: A full queue refuses instead of dropping; with ``drop-head`` at-least-once dead-lettering would be off as well.
QUORUM = {"x-queue-type": "quorum", "x-overflow": "reject-publish"}


#: The audit keeps its newest entries, so many of them; one names at most 500 letters.
AUDIT_ENTRIES = 10_000


def build(spec: Spec) -> Topology:
    """Return every exchange, queue and binding that *spec* asks for, in an order in which they can be declared."""
    delays = cascade()
    return Topology(
        exchanges=(*_exchanges(), *delays.exchanges),
        queues=(*_shared_queues(), *(q for queue in spec.queues for q in _queues(queue)), *delays.queues),
        bindings=(*_shared_bindings(), *(b for queue in spec.queues for b in _bindings(spec, queue)), *delays.bindings),
    )


def _exchanges() -> Iterator[Exchange]:
    # No alternate exchange on what is published to with `mandatory`: an unroutable message must come back.
    yield Exchange(UNROUTED, internal=True)
    yield Exchange(JOBS)
    yield Exchange(SCHEDULER)
    yield Exchange(AUDIT)
    # Reached by dead-lettering: what is unroutable there would block its source queue for everybody.
    yield Exchange(DEAD, arguments={"alternate-exchange": UNROUTED})
    yield Exchange(DELIVER, internal=True, arguments={"alternate-exchange": UNROUTED})


def _shared_queues() -> Iterator[Queue]:
    yield _kept(UNROUTED)
    yield _kept(AUDIT, {"x-overflow": "drop-head", "x-max-length": AUDIT_ENTRIES})
    yield _kept(SCHEDULER, {"x-single-active-consumer": True})
    yield _kept(SCHEDULER_VIEW, {"x-overflow": "drop-head", "x-max-length": 1})


def _queues(queue: QueueSpec) -> Iterator[Queue]:
    yield Queue(
        work_queue(queue.name),
        {
            **QUORUM,
            "x-dead-letter-exchange": DEAD,
            "x-dead-letter-routing-key": work_queue(queue.name),
            "x-dead-letter-strategy": "at-least-once",
            "x-delivery-limit": queue.delivery_limit,
            "x-queue-leader-locator": "balanced",
        },
    )
    yield _kept(dead_queue(queue.name))


def _kept(name: str, arguments: dict[str, Any] | None = None) -> Queue:
    """A queue whose messages stay until somebody takes them, however often they are looked at."""
    return Queue(name, {**QUORUM, "x-delivery-limit": NO_LIMIT, **(arguments or {})})


def _shared_bindings() -> Iterator[Binding]:
    yield Binding(UNROUTED, UNROUTED, "#")
    yield Binding(AUDIT, AUDIT, "*")
    yield Binding(SCHEDULER, SCHEDULER, "*")
    yield Binding(SCHEDULER, SCHEDULER_VIEW, STATE_KEY)


def _bindings(spec: Spec, queue: QueueSpec) -> Iterator[Binding]:
    name = work_queue(queue.name)
    for pattern in spec.patterns_of(queue):
        yield Binding(JOBS, name, pattern)
        yield Binding(DELIVER, name, f"{ANY_DELAY}k.{pattern}")
    former = [old for old, now in spec.aliases if now == queue.name]
    for called in (queue.name, *former):
        yield Binding(DELIVER, name, f"{ANY_DELAY}q.{work_queue(called)}")
        yield Binding(DEAD, dead_queue(queue.name), work_queue(called))
