"""How to change what the broker does not let be changed: the words that plans and refusals end with."""

from __future__ import annotations

from penstock.topology.names import DELAY, SCHEDULER, UNROUTED


def way_to_change_exchange(name: str) -> str:
    """How to give exchange *name* other properties."""
    return f"an exchange cannot be changed in place: delete {name} at a quiet moment (publishes to it fail) and apply"


def way_to_change_queue(name: str) -> str:
    """How to give queue *name* other arguments without losing a message."""
    start = "a queue cannot be changed in place: "
    if name == UNROUTED or name.endswith(".dead"):
        return f"{start}replay or purge what is in {name}, delete it and apply"
    if name.startswith(f"{DELAY}."):
        return f"{start}stop what delays jobs (workers too), let {name} run empty, delete it and apply"
    if name == SCHEDULER:
        return f"{start}stop the schedulers, delete {name} and apply (catch-up starts anew)"
    return f"{start}{_renamed(name.removeprefix('jobs.'))}"


def _renamed(name: str) -> str:
    return (
        f"call it {name}2 in topology.yaml, with `aliases: {{{name}: {name}2}}`, apply, unbind jobs.{name} everywhere,"
        f" start workers on {name}2, let the old ones empty jobs.{name}, then delete it"
    )
