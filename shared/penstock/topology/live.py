"""What a broker really has, as its management API tells it."""

from __future__ import annotations

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
    #: The policies that apply to it, own and operator's, and what they come to together.
    policies: tuple[str, ...] = ()
    effective: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Live:
    """One virtual host at one moment."""

    exchanges: Mapping[str, tuple[Exchange, Found]] = field(default_factory=dict)
    queues: Mapping[str, tuple[Queue, Found]] = field(default_factory=dict)
    bindings: frozenset[Binding] = frozenset()
    policies: Mapping[str, Policy] = field(default_factory=dict)


def live_from(
    exchanges: Sequence[Json], queues: Sequence[Json], bindings: Sequence[Json], policies: Sequence[Json]
) -> Live:
    """Put together what ``/api/exchanges``, ``queues``, ``bindings`` and ``policies`` of a virtual host answered."""
    tuned = {entry["name"]: _policy(entry) for entry in policies}
    return Live(
        exchanges={entry["name"]: _exchange(entry, tuned) for entry in exchanges},
        queues={entry["name"]: _queue(entry) for entry in queues},
        # Every queue is bound to the default exchange by its name, and cannot be unbound.
        bindings=frozenset(_binding(entry) for entry in bindings if entry["source"]),
        policies=tuned,
    )


def _exchange(entry: Json, policies: Mapping[str, Policy]) -> tuple[Exchange, Found]:
    name = entry.get("policy")
    policy = policies.get(name) if name else None
    found = Found(
        durable=entry["durable"],
        auto_delete=entry["auto_delete"],
        policies=(policy.name,) if policy else (),
        effective=policy.definition if policy else {},
    )
    return Exchange(entry["name"], entry["type"], entry["internal"], entry["arguments"]), found


def _queue(entry: Json) -> tuple[Queue, Found]:
    found = Found(
        durable=entry["durable"],
        auto_delete=entry["auto_delete"],
        exclusive=entry.get("exclusive", False),
        messages=entry.get("messages", 0),
        policies=tuple(name for key in ("policy", "operator_policy") if (name := entry.get(key))),
        effective=entry.get("effective_policy_definition") or {},
    )
    # A queue may have its type from the virtual host's default, and then no argument for it.
    return Queue(entry["name"], {"x-queue-type": entry.get("type", "classic"), **entry["arguments"]}), found


def _binding(entry: Json) -> Binding:
    return Binding(
        entry["source"], entry["destination"], entry["routing_key"], to_exchange=entry["destination_type"] == "exchange"
    )


def _policy(entry: Json) -> Policy:
    return Policy(entry["name"], entry["pattern"], entry["definition"], entry["apply-to"], entry["priority"])
