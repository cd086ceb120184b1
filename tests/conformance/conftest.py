"""Each conformance test runs against every broker that must pass it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.conformance.pika_subject import PikaSubject
from tests.conformance.subjects import LinkBroker, MemorySubject


@pytest.fixture(params=["memory", "pika"])
async def link_broker(
    request: pytest.FixtureRequest,
    broker_version: str,  # noqa: ARG001 - the fixtures asked for by name below need it
) -> AsyncIterator[LinkBroker]:
    """A broker with nothing declared on it; by pika, of every version that is chosen."""
    if request.param == "memory":
        yield MemorySubject()  # whatever the version: nothing else tells its tests apart
        return
    subject = PikaSubject(request.getfixturevalue("vhost_url"))  # asked for here, so that memory needs no broker
    yield subject
    await subject.close()
