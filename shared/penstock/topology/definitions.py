"""``definitions.json``: everything a broker needs at its first boot, in a form that is the same every time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any  # JSON

from penstock.topology.access import NOTHING, access
from penstock.topology.build import build
from penstock.topology.policies import Policy, policies, version_of
from penstock.topology.spec import Spec

#: What ``penstock topology export`` writes unless told otherwise.
CURRENT = "4"

Table = dict[str, list[dict[str, Any]]]


def definitions(spec: Spec, version: str = CURRENT) -> Table:
    """Return what a RabbitMQ of *version* imports to have all of *spec*: topology, users, permissions, policies.

    Users get an empty password hash, with which nobody can log in: ``penstock topology users`` or ``rabbitmqctl`` sets
    one. Lists are sorted. Raises ``ConfigError`` for a version before 3.10.
    """
    tuned = policies(spec, version_of(version))
    return {
        "vhosts": [{"name": spec.vhost}],
        "users": sorted(_users(spec), key=_name),
        "permissions": sorted(_permissions(spec), key=lambda entry: entry["user"]),
        "topic_permissions": sorted(_topic_permissions(spec), key=lambda entry: (entry["user"], entry["exchange"])),
        "policies": sorted((_policy(spec, policy) for policy in tuned), key=_name),
        **_topology(spec),
    }


def dumps(table: Table) -> str:
    """Write *table* as JSON, an entry a line, keys sorted, so that a change is seen where it is."""
    lists = ",\n".join(f"  {json.dumps(name)}: [{_entries(entries)}]" for name, entries in table.items())
    return f"{{\n{lists}\n}}\n"


def _entries(entries: Sequence[Mapping[str, Any]]) -> str:
    lines = ",\n".join(f"    {json.dumps(entry, sort_keys=True, ensure_ascii=False)}" for entry in entries)
    return f"\n{lines}\n  " if lines else ""


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["name"])


def _users(spec: Spec) -> Iterator[dict[str, Any]]:
    for user in spec.users:
        yield {
            "name": user.name,
            "password_hash": "",
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": list(access(spec, user).tags),
        }


def _permissions(spec: Spec) -> Iterator[dict[str, Any]]:
    for user in spec.users:
        may = access(spec, user)
        yield {
            "user": may.user,
            "vhost": spec.vhost,
            "configure": may.configure,
            "write": may.write,
            "read": may.read,
        }


def _topic_permissions(spec: Spec) -> Iterator[dict[str, Any]]:
    for user in spec.users:
        for exchange, keys in access(spec, user).topics.items():
            yield {"user": user.name, "vhost": spec.vhost, "exchange": exchange, "write": keys, "read": NOTHING}


def _policy(spec: Spec, policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "vhost": spec.vhost,
        "pattern": policy.pattern,
        "apply-to": policy.apply_to,
        "definition": dict(policy.definition),
        "priority": policy.priority,
    }


def _topology(spec: Spec) -> Table:
    topology = build(spec)
    common = {"vhost": spec.vhost, "durable": True, "auto_delete": False}
    return {
        "exchanges": [
            {
                "name": exchange.name,
                "type": exchange.type,
                "internal": exchange.internal,
                "arguments": dict(exchange.arguments),
                **common,
            }
            for exchange in sorted(topology.exchanges, key=lambda exchange: exchange.name)
        ],
        "queues": [
            {"name": queue.name, "arguments": dict(queue.arguments), **common}
            for queue in sorted(topology.queues, key=lambda queue: queue.name)
        ],
        "bindings": [
            {
                "source": binding.source,
                "vhost": spec.vhost,
                "destination": binding.destination,
                "destination_type": "exchange" if binding.to_exchange else "queue",
                "routing_key": binding.key,
                "arguments": {},
            }
            for binding in sorted(topology.bindings, key=lambda b: (b.source, b.destination, b.to_exchange, b.key))
        ],
    }
