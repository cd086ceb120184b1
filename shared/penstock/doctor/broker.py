"""What the management API tells of the broker: its version, drift, plugins, alarms, clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any  # the management API's JSON

from penstock.doctor import permissions
from penstock.doctor.findings import Finding, failed, unseen, well, wrong
from penstock.doctor.versions import FIT, judge
from penstock.errors import AccessRefused, BrokerError, PenstockError
from penstock.management import Management
from penstock.thresholds import CLOCK_SKEW
from penstock.topology.build import build
from penstock.topology.live import Live
from penstock.topology.plan import Difference, Effort, plan
from penstock.topology.policies import policies, version_of
from penstock.topology.spec import Spec

#: What the rules of Prometheus, and the management UI's form for moving messages, need.
PLUGINS = ("rabbitmq_prometheus", "rabbitmq_shovel", "rabbitmq_shovel_management")

_CHECKS = ("version", "permissions", "topology", "policies", "plugins", "alarms", "clock")
_SEES_NODES = frozenset({"monitoring", "administrator"})


@dataclass(frozen=True, slots=True)
class Sight:
    """What was found, and what is live on the broker where that could be seen."""

    findings: Sequence[Finding] = ()
    live: Live | None = field(default=None, repr=False)


def check(management: Management, spec: Spec | None, *, production: bool) -> Sight:
    """Look at everything the management API tells. Blocking; one failing question does not keep others from being put,
    unless nothing answers."""
    try:
        me = management.read("whoami")
        version = management.version()
    except PenstockError as error:
        return Sight([_no_management(error), *(unseen(name, "not without the management API") for name in _CHECKS)])
    tags = _tags(me)
    live, drift = _drift(management, spec, version)
    nodes = _nodes(management, tags)
    return Sight(
        [
            well("management", management.at),
            _version(version, production=production),
            _permissions(management, spec, tags, production=production),
            *drift,
            *nodes,
            _clock(management),
        ],
        live,
    )


def _no_management(error: PenstockError) -> Finding:
    if not isinstance(error, AccessRefused):
        return failed("management", error)[0]
    cure = "correct its login in RABBITMQ_MANAGEMENT_URL; the user needs the tag management or monitoring"
    return wrong("management", str(error), cure, error.exit_code)


def _tags(me: Any) -> frozenset[str]:
    tags = me.get("tags") or []
    return frozenset(tags.split(",") if isinstance(tags, str) else tags)


def _version(version: str, *, production: bool) -> Finding:
    found = judge(version)
    if not found.usable or (found.lacks and production):
        return wrong("version", f"RabbitMQ {version}: {found.lacks}", f"run {FIT}")
    note = f", for development: {found.lacks}; production wants {FIT}" if found.lacks else ""
    return well("version", f"RabbitMQ {version}{note}")


def _permissions(management: Management, spec: Spec | None, tags: frozenset[str], *, production: bool) -> Finding:
    if spec is None:
        return unseen("permissions", "no topology file to compare with")
    return _answered("permissions", lambda: permissions.check(management, spec, tags, production=production))


def _drift(management: Management, spec: Spec | None, version: str) -> tuple[Live | None, list[Finding]]:
    try:
        live = management.live()
    except AccessRefused as error:
        why = f"{error}; the login needs the tag monitoring or policymaker"
        return None, [unseen("topology", why), unseen("policies", why)]
    except BrokerError as error:
        return None, [*failed("topology", error), unseen("policies", "not without the topology")]
    if spec is None:
        return live, [unseen(name, "no topology file to compare with") for name in ("topology", "policies")]
    try:
        found = plan(build(spec), policies(spec, version_of(version)), live)
    except PenstockError as error:  # a broker too old
        return live, [*failed("topology", error), unseen("policies", "not without the topology")]
    return live, [_topology([d for d in found if d.policy is None]), _policies([d for d in found if d.policy])]


def _topology(found: Sequence[Difference]) -> Finding:
    if not found:
        return well("topology", "as the file says")
    worst = next((d for d in found if d.effort is Effort.DANGEROUS), found[0])
    more = f" (and {len(found) - 1} more: penstock topology plan)" if len(found) > 1 else ""
    return wrong("topology", f"{worst.subject} {worst.words}{more}", worst.way or "penstock topology apply")


def _policies(found: Sequence[Difference]) -> Finding:
    if not found:
        return well("policies", "none weakens a queue")
    more = f" (and {len(found) - 1} more: penstock topology plan)" if len(found) > 1 else ""
    return wrong("policies", f"{found[0].subject}: {found[0].words}{more}", found[0].way or "delete the policy")


def _nodes(management: Management, tags: frozenset[str]) -> list[Finding]:
    if not tags & _SEES_NODES:
        why = "the management login needs the tag monitoring"
        return [unseen("plugins", why), unseen("alarms", why)]
    columns = "name,running,enabled_plugins,mem_alarm,disk_free_alarm,partitions"
    try:
        nodes = management.read("nodes", columns=columns)
    except BrokerError as error:
        return [*failed("plugins", error), unseen("alarms", "not without the list of nodes")]
    return of_nodes(nodes)


def of_nodes(nodes: Sequence[Any]) -> list[Finding]:
    """What the list of nodes says of plugins and alarms. Pure."""
    if young := [node["name"] for node in nodes if node.get("running") and "enabled_plugins" not in node]:
        why = f"{', '.join(young)} was just started and has told nothing of itself: ask again in some seconds"
        return [unseen("plugins", why), unseen("alarms", why)]
    return [_plugins(nodes), _alarms(nodes)]


def _plugins(nodes: Sequence[Any]) -> Finding:
    for node in nodes:
        if not node.get("running"):
            continue
        missing = [plugin for plugin in PLUGINS if plugin not in node.get("enabled_plugins", ())]
        if missing:
            words = f"off on {node['name']}: {', '.join(missing)}"
            return wrong("plugins", words, f"rabbitmq-plugins enable {' '.join(missing)} (alarms and moving letters)")
    return well("plugins", "management, prometheus and shovel are on")


def _alarms(nodes: Sequence[Any]) -> Finding:
    problems = [problem for node in nodes for problem in _node_problems(node)]
    if not problems:
        return well("alarms", f"none on {len(nodes)} node{'s' if len(nodes) > 1 else ''}")
    words, cure = zip(*problems, strict=True)
    return wrong("alarms", "; ".join(words), cure[0])


def _node_problems(node: Any) -> Iterator[tuple[str, str]]:
    name = node["name"]
    if not node.get("running"):
        yield f"node {name} is down", "start it, or take it out with rabbitmqctl forget_cluster_node"
    if node.get("mem_alarm"):
        yield (
            f"memory alarm on {name}: publishers are blocked",
            "give it memory or empty queues; vm_memory_high_watermark is the bound",
        )
    if node.get("disk_free_alarm"):
        yield f"disk alarm on {name}: publishers are blocked", "free disk space; disk_free_limit is the bound"
    if node.get("partitions"):
        yield f"{name} is partitioned from {', '.join(node['partitions'])}", "mend the network, then restart that node"


def _clock(management: Management) -> Finding:
    def look() -> Finding:
        offset = management.clock_offset().total_seconds()
        if abs(offset) <= CLOCK_SKEW.total_seconds():
            return well("clock", "agrees with the broker's")
        words = f"this machine's clock is {abs(offset):.0f} s {'behind' if offset > 0 else 'ahead of'} the broker's"
        return wrong("clock", words, "let both follow NTP: expiry and due times are told by the clock")

    return _answered("clock", look)


def _answered(check: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except AccessRefused as error:
        return unseen(check, str(error))
    except BrokerError as error:
        return failed(check, error)[0]
