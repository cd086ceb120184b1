"""The tunables of queues as broker policies, as far as a broker's version knows them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any  # policy values are JSON: text and whole numbers

from penstock.errors import ConfigError
from penstock.topology.names import work_queue
from penstock.topology.spec import QueueSpec, Spec

OLDEST = (3, 10)

#: From this version on there is a policy key ``consumer-timeout`` and ``quorum_queues`` to apply a policy to.
_TUNABLE = (3, 12)

#: Only one policy applies to a queue, the one with the highest priority: above the 0 of what others write.
_PRIORITY = 10

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy: what the queues whose names fit *pattern* are tuned to."""

    name: str
    pattern: str
    definition: Mapping[str, Any]
    apply_to: str = "quorum_queues"
    priority: int = _PRIORITY


def version_of(text: str) -> Version:
    """Read a version such as ``4``, ``3.10`` or ``4.3.6``. Raises ``ConfigError`` for others and before 3.10."""
    match = re.fullmatch(r"(\d{1,4})(?:\.(\d{1,4})(?:\.\d+)?)?(?:[-+~].*)?", text)
    if match is None:
        raise ConfigError(f"{text[:40]!r} is not a RabbitMQ version such as 4.3 or 3.10")
    version = int(match[1]), int(match[2] or 0)
    if version < OLDEST:
        raise ConfigError(f"RabbitMQ {text} cannot carry Penstock: message delays in quorum queues came with 3.10")
    return version


def policies(spec: Spec, version: Version) -> Sequence[Policy]:
    """Return the policies for a broker of *version*, one per tuned queue; an older one has none."""
    if version < _TUNABLE:
        return ()
    tuned = ((queue, _definition(queue)) for queue in spec.queues)
    return tuple(
        Policy(work_queue(queue.name), f"^{re.escape(work_queue(queue.name))}$", definition)
        for queue, definition in tuned
        if definition
    )


def _definition(queue: QueueSpec) -> Mapping[str, Any]:
    if queue.consumer_timeout is None:
        return {}
    return {"consumer-timeout": round(queue.consumer_timeout.total_seconds() * 1000)}
