"""Brings a broker to the topology that is wanted, or says why it must not be done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.brokers.aio_pika_driver import open_admin
from penstock.errors import AccessRefused, ConnectionLost, TopologyMismatch
from penstock.management import Management
from penstock.topology.build import build
from penstock.topology.plan import Difference, Effort, plan
from penstock.topology.policies import policies, version_of
from penstock.topology.spec import Spec
from penstock.urls import BrokerUrl


@dataclass(frozen=True, slots=True)
class Applied:
    """What ``apply_all`` did: the differences it took away, those that remain, and why it could not look, if so."""

    done: Sequence[Difference] = ()
    left: Sequence[Difference] = ()
    blind: str | None = None


async def apply(url: BrokerUrl | str, spec: Spec) -> None:
    """Declare everything of *spec* over AMQP, idempotently: exchanges, queues, bindings; no policies, no users.

    Raises ``TopologyMismatch`` when something exists otherwise, ``AccessRefused``, ``ConnectionLost``. Tries once.
    """
    admin = await open_admin(url)
    try:
        await admin.declare(build(spec))
    finally:
        await admin.close()


def differences(management: Management, spec: Spec) -> list[Difference]:
    """Compare *spec* with the live broker. Raises as ``Management`` does, and ``ConfigError`` for a broker too old."""
    version = version_of(management.version())
    return plan(build(spec), policies(spec, version), management.live())


async def apply_all(url: BrokerUrl, management: Management, spec: Spec) -> Applied:
    """Create what is missing and set the policies, unless there is a dangerous difference: then change nothing.

    Where the management API does not answer or does not let us in, everything is declared over AMQP all the same, and
    the result says what could not be done. Raises ``TopologyMismatch`` naming every dangerous difference and the way to
    migrate, ``AccessRefused``, ``ConnectionLost``, ``ConfigError`` for a broker too old.
    """
    try:
        before = differences(management, spec)
    except (ConnectionLost, AccessRefused) as error:
        await apply(url, spec)
        return Applied(blind=str(error))
    refuse_dangerous(before)
    await apply(url, spec)
    for policy in policies(spec, version_of(management.version())):
        management.put_policy(policy)
    left = differences(management, spec)
    return Applied([difference for difference in before if difference not in left], left)


def refuse_dangerous(found: Sequence[Difference]) -> None:
    """Raise ``TopologyMismatch`` with every dangerous one of *found*, if there is any."""
    dangerous = [str(difference) for difference in found if difference.effort is Effort.DANGEROUS]
    if dangerous:
        raise TopologyMismatch("nothing was changed: " + "; ".join(dangerous))
