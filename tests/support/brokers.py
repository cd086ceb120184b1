"""Fixtures that give tests a real broker: one per run and version, a vhost per test, or a node a test may kill."""

from __future__ import annotations

import json
import os
import urllib.request
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # the management API's JSON
from urllib.parse import quote

import pytest

from penstock.testing.broker_node import BrokerInfo, PrivateBroker

#: The versions to test against, by commas; ``make test`` leaves it at Debian 12's own.
CHOSEN = os.environ.get("PENSTOCK_TEST_BROKERS", "3.10").split(",")

#: Where infra/scripts/chroot-broker puts its trees.
TREES = Path(os.environ.get("PENSTOCK_CHROOTS", "/var/cache/penstock"))

_INSTALLATIONS: dict[str, str | Path] = {"3.10": "host", "4.0": TREES / "trixie", "4.3": TREES / "sid"}


def installation(version: str) -> str | Path:
    """What ``PrivateBroker`` calls the RabbitMQ of series *version*."""
    return _INSTALLATIONS[version]


StartBroker = Callable[..., PrivateBroker]


@dataclass(frozen=True, slots=True)
class Vhost:
    """A fresh virtual host for one test."""

    name: str
    broker: BrokerInfo

    @property
    def url(self) -> str:
        """Its AMQP URL, password and all."""
        return self.broker.url_for(self.name)


@pytest.fixture(scope="session", params=CHOSEN)
def broker_version(request: pytest.FixtureRequest) -> str:
    """The RabbitMQ series the test runs on, such as ``"3.10"``."""
    version: str = request.param
    assert version in _INSTALLATIONS, f"PENSTOCK_TEST_BROKERS knows {', '.join(_INSTALLATIONS)}, not {version}"
    return version


@pytest.fixture(scope="session")
def broker(broker_version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerInfo]:
    """The broker all tests of a version share. Do not stop it, and keep to your own vhost."""
    node = PrivateBroker(tmp_path_factory.mktemp("broker"), _INSTALLATIONS[broker_version])
    try:
        info = node.start()
        assert _series(info.version) >= _series(broker_version), f"{info.version} is older than {broker_version}"
        yield info
    finally:
        node.kill()


@pytest.fixture
def own_broker(broker_version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartBroker]:
    """Start nodes of the test's own, which it may kill and start again: ``own_broker(extra_conf=...)``."""
    nodes: list[PrivateBroker] = []

    def start(**options: Any) -> PrivateBroker:
        nodes.append(PrivateBroker(tmp_path_factory.mktemp("own"), _INSTALLATIONS[broker_version], **options))
        nodes[-1].start()
        return nodes[-1]

    yield start
    for node in nodes:
        node.kill()


@pytest.fixture
def vhost(broker: BrokerInfo) -> Iterator[Vhost]:
    """A virtual host of the test's own, deleted after it."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    manage(broker, "PUT", f"/api/vhosts/{name}")
    yield Vhost(name, broker)
    manage(broker, "DELETE", f"/api/vhosts/{name}")


@pytest.fixture
def vhost_url(vhost: Vhost) -> str:
    """The AMQP URL of a virtual host of the test's own."""
    return vhost.url


def on_disk(broker: BrokerInfo, queue: str) -> bool:
    """Whether a crash of the node would leave *queue* (a quorum queue) what it holds.

    RabbitMQ writes the name of a new quorum queue down about a second after the declaration was answered. Killed before
    that, the queue has no leader for ever on 3.10 and 4.0 and is empty on 4.3, confirmed messages and all (measured).
    """
    return any(queue.encode() in names.read_bytes() for names in broker.folder.rglob("quorum/*/names.dets"))


def manage(broker: BrokerInfo, method: str, path: str, body: object = None) -> Any:
    """Call the management HTTP API of *broker* and return the JSON it answers with, None when it answers nothing."""
    request = urllib.request.Request(broker.management_url + path, method=method)
    request.add_header("Authorization", "Basic " + b64encode(f"{broker.user}:{broker.password}".encode()).decode())
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=60) as answer:
        said = answer.read()
    return json.loads(said) if said else None


def _series(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def quoted(name: str) -> str:
    """*name* as one segment of a management API path."""
    return quote(name, safe="")
