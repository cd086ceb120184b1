"""What a broker really has, as its management API tells it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any  # the management API's JSON

from penstock.topology.model import Binding, Exchange, Queue
from penstock.topology.policies import Policy

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What a live exchange or queue has besides what is declared of it."""

    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    messages: int = 0
    #: The policies that apply to it: at most one, and at most one operator's.
    policies: tuple[Policy, ...] = ()


@dataclass(frozen=True, slots=True)
class Live:
    """One virtual host at one moment."""

    exchanges: Mapping[str, tuple[Exchange, Found]] = field(default_factory=dict)
    queues: Mapping[str, tuple[Queue, Found]] = field(default_factory=dict)
    bindings: frozenset[Binding] = frozenset()
    policies: Mapping[str, Policy] = field(default_factory=dict)


def live_from(
    exchanges: Sequence[Json],
    queues: Sequence[Json],
    bindings: Sequence[Json],
    policies: Sequence[Json],
    operator_policies: Sequence[Json] = (),
) -> Live:
    """Put together what ``/api/exchanges``, ``queues``, ``bindings`` and both kinds of policies answered."""
    tuned = {entry["name"]: _policy(entry) for entry in policies}
    operated = [_policy(entry) for entry in operator_policies]
    return Live(
        exchanges={entry["name"]: (_exchange(entry), _found(entry, tuned, [])) for entry in exchanges},
        queues={entry["name"]: (_queue(entry), _found(entry, tuned, operated)) for entry in queues},
        # Every queue is bound to the default exchange by its name, and cannot be unbound.
        bindings=frozenset(_binding(entry) for entry in bindings if entry["source"]),
        policies=tuned,
    )


def _found(entry: Json, policies: Mapping[str, Policy], operator_policies: Sequence[Policy]) -> Found:
    applied = (policies.get(entry.get("policy") or ""), _operators(entry, operator_policies))
    return Found(
        durable=entry["durable"],
        auto_delete=entry["auto_delete"],
        exclusive=bool(entry.get("exclusive")),
        messages=entry.get("messages") or 0,
        policies=tuple(policy for policy in applied if policy is not None),
    )


def _operators(entry: Json, policies: Sequence[Policy]) -> Policy | None:
    """The operator policy of a queue, by the broker's own rule: listings do not name it."""
    kinds = ("all", "queues", f"{entry.get('type')}_queues")
    fitting = [policy for policy in policies if policy.apply_to in kinds and _fits(policy.pattern, entry["name"])]
    return max(fitting, key=lambda policy: policy.priority, default=None)


def _fits(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:  # Erlang's dialect has a few things that Python's has not
        return False


def _exchange(entry: Json) -> Exchange:
    return Exchange(entry["name"], entry["type"], entry["internal"], entry["arguments"])


def _queue(entry: Json) -> Queue:
    # A queue may have its type from the virtual host's default, and then no argument for it.
    return Queue(entry["name"], {"x-queue-type": entry.get("type", "classic"), **entry["arguments"]})


def _binding(entry: Json) -> Binding:
    return Binding(
        entry["source"], entry["destination"], entry["routing_key"], to_exchange=entry["destination_type"] == "exchange"
    )


def _policy(entry: Json) -> Policy:
    return Policy(entry["name"], entry["pattern"], entry["definition"], entry["apply-to"], entry["priority"])
