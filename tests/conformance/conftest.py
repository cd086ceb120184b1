"""Each conformance test runs against every broker that must pass it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conformance.pika_subject import PikaSubject
from tests.conformance.subjects import LinkBroker, MemorySubject
from tests.support.brokers import CHOSEN


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The broker in memory has no version: it is tested once, not once for each RabbitMQ."""
    again = {item for item in items if _is_again(item)}
    config.hook.pytest_deselected(items=list(again))
    items[:] = [item for item in items if item not in again]


def _is_again(item: pytest.Item) -> bool:
    chosen: dict[str, object] = item.callspec.params if hasattr(item, "callspec") else {}
    return chosen.get("link_broker") == "memory" and chosen["broker_version"] != CHOSEN[0]


@pytest.fixture(params=["memory", "pika"])
async def link_broker(
    request: pytest.FixtureRequest,
    broker_version: str,  # noqa: ARG001 - the fixtures asked for by name below need it
) -> AsyncIterator[LinkBroker]:
    """A broker with nothing declared on it; by pika, of every version that is chosen."""
    if request.param == "memory":
        yield MemorySubject()
        return
    subject = PikaSubject(request.getfixturevalue("vhost_url"))  # asked for here, so that memory needs no broker
    yield subject
    await subject.close()
