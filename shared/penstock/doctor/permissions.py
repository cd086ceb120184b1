"""Whether users may do on the broker what ``topology.yaml`` says, no less and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any  # the management API's JSON

from penstock.doctor.findings import Finding, unseen, well, wrong
from penstock.management import Management
from penstock.topology.access import NOTHING, Access, access
from penstock.topology.spec import Spec

_CHECK = "permissions"
_CURE = "penstock topology users --passwords-from DIR sets them, as an administrator"
_SHOWN = 3


def check(management: Management, spec: Spec, tags: frozenset[str], *, production: bool) -> Finding:
    """Compare the users of *spec* with the broker's; one that does not exist counts in production only."""
    if not spec.users:
        return unseen(_CHECK, "the topology names no users")
    if "administrator" not in tags:
        return unseen(_CHECK, "takes an administrator: log in as one in RABBITMQ_MANAGEMENT_URL")
    known = {user["name"] for user in management.read("users", columns="name")}
    live = _live(management)
    missing = [user.name for user in spec.users if user.name not in known]
    problems = [f"users are missing: {', '.join(missing)}"] if missing and production else []
    for user in spec.users:
        if user.name in known:
            problems += _differing(access(spec, user), live.get(user.name))
    if problems:
        return wrong(_CHECK, _some(problems), _CURE)
    there = len(spec.users) - len(missing)
    return well(_CHECK, f"{there} of {len(spec.users)} users of the topology exist, with what they may do")


def _live(management: Management) -> Mapping[str, Access]:
    """What each user may do in the virtual host; users without access are not in it."""
    topics: dict[str, dict[str, str]] = {}
    for entry in management.read("vhosts/{vhost}/topic-permissions"):
        topics.setdefault(entry["user"], {})[entry["exchange"]] = entry["write"]
    return {entry["user"]: _access(entry, topics) for entry in management.read("vhosts/{vhost}/permissions")}


def _access(entry: Mapping[str, Any], topics: Mapping[str, Mapping[str, str]]) -> Access:
    user = entry["user"]
    return Access(user, (), entry["configure"], entry["write"], entry["read"], topics.get(user, {}))


def _differing(wanted: Access, live: Access | None) -> Iterator[str]:
    have = live or Access(wanted.user)
    for name in ("configure", "write", "read"):
        yield from _one(wanted.user, name, getattr(wanted, name), getattr(have, name))
    for exchange in sorted(wanted.topics.keys() | have.topics.keys()):
        want, has = wanted.topics.get(exchange, "any key"), have.topics.get(exchange, "any key")
        yield from _one(wanted.user, f"keys to {exchange}", want, has)


def _one(user: str, name: str, wanted: str, live: str) -> Iterator[str]:
    # The broker reads an empty pattern as one that fits nothing.
    if (live or NOTHING) != (wanted or NOTHING):
        yield f"user {user}: {name} is {live}, wanted is {wanted}"


def _some(problems: list[str]) -> str:
    rest = len(problems) - _SHOWN
    return "; ".join([*problems[:_SHOWN], *([f"and {rest} more"] if rest > 0 else [])])
