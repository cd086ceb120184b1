"""What differs between the topology that is wanted and a live broker, in words, and what each difference takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any  # arguments are AMQP values

from penstock.delay import ANY_DELAY
from penstock.topology.live import Found, Live
from penstock.topology.migration import way_to_change_exchange, way_to_change_queue
from penstock.topology.model import Binding, Exchange, Queue, Topology
from penstock.topology.names import JOBS
from penstock.topology.policies import Policy

_ABSENT = "not set"


class Effort(StrEnum):
    """What a difference takes to go away."""

    #: ``penstock topology apply`` does it.
    CREATABLE = "creatable"
    #: It cannot be changed in place, or somebody else's setting endangers messages; ``apply`` refuses and says the way.
    DANGEROUS = "dangerous"
    #: Nothing is wrong yet; a person should know.
    INFORMATIONAL = "informational"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: of what, in which words, and the way to migrate or mend where ``apply`` is not it.

    *policy*: the one that does it, where a policy endangers what was declared well.
    """

    subject: str
    words: str
    effort: Effort
    way: str | None = None
    policy: str | None = None

    def __str__(self) -> str:
        return f"{self.subject}: {self.words}" + (f"; {self.way}" if self.way else "")


def plan(wanted: Topology, policies: Sequence[Policy], live: Live) -> list[Difference]:
    """Compare *wanted* and its *policies* with what is *live*; an empty list means there is nothing to do.

    What has not to do with us is not looked at: names other than ``jobs`` and ``jobs.…``, and bindings between them.
    A missing exchange or queue stands for its bindings too.
    """
    return [
        *_exchanges(wanted, live),
        *_queues(wanted, live),
        *_missing_bindings(wanted, live),
        *_unknown_bindings(wanted, live),
        *_policies(policies, live),
    ]


def _exchanges(wanted: Topology, live: Live) -> Iterator[Difference]:
    for exchange in wanted.exchanges:
        subject = f"exchange {exchange.name}"
        if exchange.name in live.exchanges:
            way = way_to_change_exchange(exchange.name)
            for words in _of_exchange(exchange, *live.exchanges[exchange.name]):
                yield Difference(subject, words, Effort.DANGEROUS, way)
            yield from _dangers(subject, live.exchanges[exchange.name][1], _endangers_exchange(exchange))
        else:
            yield Difference(subject, "is missing", Effort.CREATABLE)
    for name in _unknown(live.exchanges, {exchange.name for exchange in wanted.exchanges}):
        yield Difference(
            f"exchange {name}", "is not in topology.yaml", Effort.INFORMATIONAL, "delete it if nobody needs it"
        )


def _queues(wanted: Topology, live: Live) -> Iterator[Difference]:
    for queue in wanted.queues:
        subject = f"queue {queue.name}"
        if queue.name in live.queues:
            way = way_to_change_queue(queue.name)
            for words in _of_queue(queue, *live.queues[queue.name]):
                yield Difference(subject, words, Effort.DANGEROUS, way)
            yield from _dangers(subject, live.queues[queue.name][1], _endangers_queue(queue))
        else:
            yield Difference(subject, "is missing", Effort.CREATABLE)
    for name in _unknown(live.queues, {queue.name for queue in wanted.queues}):
        count = live.queues[name][1].messages
        words = f"is not in topology.yaml, and holds {count} messages"
        yield Difference(f"queue {name}", words, Effort.INFORMATIONAL, "delete it when it is empty and nobody needs it")


def _unknown(names: Mapping[str, object], wanted: set[str]) -> Sequence[str]:
    return sorted(name for name in names if (name == JOBS or name.startswith(f"{JOBS}.")) and name not in wanted)


def _of_exchange(wanted: Exchange, live: Exchange, found: Found) -> Iterator[str]:
    yield from _differing(
        {"type": wanted.type, "internal": wanted.internal}, {"type": live.type, "internal": live.internal}
    )
    yield from _differing({"durable": True, "auto-delete": False}, _lifetime(found))
    yield from _differing(wanted.arguments, live.arguments)


def _of_queue(wanted: Queue, live: Queue, found: Found) -> Iterator[str]:
    yield from _differing(
        {"durable": True, "auto-delete": False, "exclusive": False}, {**_lifetime(found), "exclusive": found.exclusive}
    )
    yield from _differing(wanted.arguments, live.arguments)


def _lifetime(found: Found) -> Mapping[str, Any]:
    return {"durable": found.durable, "auto-delete": found.auto_delete}


def _differing(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(wanted.keys() | live.keys()):
        want, have = wanted.get(name, _ABSENT), live.get(name, _ABSENT)
        if want != have or isinstance(want, bool) is not isinstance(have, bool):
            yield f"{name} is {_shown(have)} on the broker, wanted is {_shown(want)}"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


Endangers = Callable[[str, Any], str | None]


def _dangers(subject: str, found: Found, endangers: Endangers) -> Iterator[Difference]:
    """What policies, ours or others', do to a thing that its arguments do not show."""
    for policy in found.policies:
        for key, value in sorted(policy.definition.items()):
            if (why := endangers(key, value)) is not None:
                words = f"policy {policy.name} sets {key} to {_shown(value)}: {why}"
                way = f"take {key} out of that policy, or keep it away from ^jobs"
                yield Difference(subject, words, Effort.DANGEROUS, way, policy.name)


def _endangers_exchange(exchange: Exchange) -> Endangers:
    def endangers(key: str, _: Any) -> str | None:
        if key == "alternate-exchange" and key not in exchange.arguments:
            return "unroutable messages would be confirmed instead of returned"
        return None

    return endangers


def _endangers_queue(queue: Queue) -> Endangers:
    """A queue's argument and its policy: the smaller limit counts, but always the policy's overflow."""

    def endangers(key: str, value: Any) -> str | None:
        limit = queue.arguments["x-delivery-limit"]
        match key:
            case "overflow" if value != queue.arguments["x-overflow"]:
                return "a full queue would drop jobs, and dead letters could be lost on their way"
            case "max-length" | "max-length-bytes":
                return "a queue that refuses messages stalls delayed jobs of all queues"
            case "message-ttl" | "expires":
                return "jobs would vanish, or come too early"
            case "delivery-limit" if type(value) is int and value < limit:
                return f"wanted is {limit}"
            case _:
                return None

    return endangers


def _missing_bindings(wanted: Topology, live: Live) -> Iterator[Difference]:
    for binding in wanted.bindings:
        ends = live.exchanges if binding.to_exchange else live.queues
        if binding not in live.bindings and binding.source in live.exchanges and binding.destination in ends:
            yield Difference(_named(binding), "is missing", Effort.CREATABLE)


def _unknown_bindings(wanted: Topology, live: Live) -> Iterator[Difference]:
    exchanges = {exchange.name for exchange in wanted.exchanges}
    ours = exchanges | {queue.name for queue in wanted.queues}
    extra = live.bindings - frozenset(wanted.bindings)
    for binding in sorted(extra, key=lambda binding: (binding.source, binding.destination, binding.key)):
        if binding.source in exchanges or binding.destination in ours:
            words = f"is not in topology.yaml: what fits it goes to {binding.destination} as well"
            yield Difference(_named(binding), words, Effort.INFORMATIONAL, "unbind it if nobody needs it")


def _named(binding: Binding) -> str:
    kind = "exchange" if binding.to_exchange else "queue"
    key = binding.key.replace(ANY_DELAY, "any delay, ")
    return f"binding {binding.source} → {kind} {binding.destination} by {key}"


def _policies(policies: Sequence[Policy], live: Live) -> Iterator[Difference]:
    for policy in policies:
        subject = f"policy {policy.name}"
        have = live.policies.get(policy.name)
        if have is None:
            yield Difference(subject, "is missing", Effort.CREATABLE)
            continue
        for words in _differing(_of_policy(policy), _of_policy(have)):
            yield Difference(subject, words, Effort.CREATABLE)
    for name in _unknown(live.policies, {policy.name for policy in policies}):
        yield Difference(
            f"policy {name}", "is not in topology.yaml", Effort.INFORMATIONAL, "delete it if nobody needs it"
        )
    yield from _overridden(policies, live)


def _of_policy(policy: Policy) -> Mapping[str, Any]:
    return {
        "pattern": policy.pattern,
        "apply-to": policy.apply_to,
        "priority": policy.priority,
        **{f"definition {name}": value for name, value in policy.definition.items()},
    }


def _overridden(policies: Sequence[Policy], live: Live) -> Iterator[Difference]:
    """Only one policy applies to a queue: another with a higher priority makes ours count for nothing."""
    for policy in policies:
        _, found = live.queues.get(policy.name, (None, Found()))
        names = [applied.name for applied in found.policies]
        if policy.name in live.policies and names and policy.name not in names:
            words = f"has no effect on queue {policy.name}, to which policy {names[0]} applies"
            yield Difference(f"policy {policy.name}", words, Effort.INFORMATIONAL, "give that one a lower priority")
