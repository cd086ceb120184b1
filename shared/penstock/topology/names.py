"""The names of Penstock's exchanges and queues: one place, so that code, broker and docs agree."""

from __future__ import annotations

JOBS = "jobs"
DELAY = "jobs.delay"
DELIVER = "jobs.deliver"
DEAD = "jobs.dead"
UNROUTED = "jobs.unrouted"
SCHEDULER = "jobs.scheduler"
#: Holds the schedulers' newest state for whoever wants to look: the one in ``jobs.scheduler`` is in its leader's hands.
SCHEDULER_VIEW = "jobs.scheduler.view"
#: Who did what to dead letters.
AUDIT = "jobs.dead.audit"
#: The routing keys on the exchange ``jobs.scheduler``.
STATE_KEY, KNOCK_KEY, CLAIM_KEY, COMMAND_KEY = "state", "knock", "claim", "command"

#: Words a work queue may not be called by (``delay*`` and ``*.dead`` are refused as well).
RESERVED = frozenset({"deliver", "dead", "unrouted", "scheduler", "scheduler.view", "dead.audit"})


def work_queue(name: str) -> str:
    """The queue of job family *name*: ``email`` → ``jobs.email``."""
    return f"jobs.{name}"


def dead_queue(name: str) -> str:
    """The dead-letter queue of job family *name*: ``email`` → ``jobs.email.dead``."""
    return f"jobs.{name}.dead"
