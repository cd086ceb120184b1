"""All checks of the doctor, made side by side, told in one order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import timedelta

from penstock.doctor import broker, connection, machine, workers
from penstock.doctor.broker import Sight
from penstock.doctor.findings import Finding, failed, unseen, well
from penstock.errors import ConfigError
from penstock.management import Management
from penstock.settings import Settings
from penstock.topology.reading import read_spec
from penstock.topology.spec import Spec
from penstock.urls import BrokerUrl

#: The doctor does not wait for those who may come back.
PATIENCE = timedelta(seconds=2)


async def examine(settings: Settings, targets: Sequence[str] = (), *, patience: timedelta = PATIENCE) -> list[Finding]:
    """Look at everything once; *targets* are workers (``MODULE:FACTORY``). Never raises for what it finds.

    *patience*: how long the broker, each question to its management API, and the store may take to answer.
    """
    spec, file = _spec(settings)
    port = asyncio.create_task(machine.metrics_port(settings))
    reached, sight = await _broker(settings, spec, patience)
    built = [await workers.check(target, settings, sight.live) for target in targets]
    stored = await machine.store(settings, patience, needed=any(needs for _, needs in built))
    return [*reached, *file, *sight.findings, *(one for found, _ in built for one in found), *stored, await port]


async def _broker(settings: Settings, spec: Spec | None, patience: timedelta) -> tuple[Sequence[Finding], Sight]:
    try:
        url = settings.broker_url
        at = os.environ.get("RABBITMQ_MANAGEMENT_URL")
        management = Management(url, at, timeout=patience.total_seconds(), tries=1)
    except ConfigError as error:
        return failed("url", error), Sight([unseen("broker", "not without its URL")])
    with management:
        look = asyncio.to_thread(broker.check, management, spec, production=settings.production)
        reached, sight = await asyncio.gather(connection.check(url, patience), look)
    return [_url(url), *reached], sight


def _url(url: BrokerUrl) -> Finding:
    return well("url", url.masked)


def _spec(settings: Settings) -> tuple[Spec | None, list[Finding]]:
    """What the topology file says, and what is wrong with it. One that nobody named may be missing."""
    if "topology" not in settings.model_fields_set and not settings.topology.exists():
        return None, []
    try:
        return read_spec(settings.topology), []
    except ConfigError as error:
        return None, failed("topology file", error)
