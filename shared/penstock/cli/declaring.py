"""Declaring the topology before a worker starts, as ``--apply`` asks for."""

from __future__ import annotations

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_delay, wait_random_exponential

from penstock.brokers.aio_pika_driver import AioPikaAdmin, open_admin
from penstock.errors import ConnectionLost
from penstock.settings import Settings
from penstock.topology.build import build
from penstock.topology.reading import read_spec

_log = structlog.stdlib.get_logger("penstock")


async def declare(settings: Settings) -> None:
    """Declare what the topology file describes, idempotently, waiting for the broker as long as a worker would.

    Raises ``ConfigError`` for the file, and ``BrokerError``: ``TopologyMismatch`` when something exists otherwise.
    """
    topology = build(read_spec(settings.topology))
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(ConnectionLost),
        wait=wait_random_exponential(multiplier=0.2, max=5.0),
        stop=stop_after_delay(settings.connect_timeout.total_seconds()),
        before_sleep=_report,
        reraise=True,
    )
    admin: AioPikaAdmin = await retrying(open_admin, settings.broker_url)
    try:
        await admin.declare(topology)
    finally:
        await admin.close()
    _log.info("topology declared", file=str(settings.topology), queues=len(topology.queues))


def _report(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    _log.warning(
        "cannot connect", attempt=state.attempt_number, again_in=round(state.upcoming_sleep, 1), error=str(error)
    )
