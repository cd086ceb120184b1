"""The brokers to run on: private nodes of the host's RabbitMQ and of newer ones, or any that run already."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.testing.broker_node import PrivateBroker
from tests.bench import queues
from tests.bench.lineup import SCRATCH
from tests.support.brokers import TREES

#: What ``PrivateBroker`` is to run for each series.
INSTALLATIONS: dict[str, str | Path] = {"3.10": "host", "4.0": TREES / "trixie", "4.3": TREES / "sid"}
#: Those that results are published for.
PUBLISHED = ("3.10", "4.3")


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker that runs. *series* is what results are filed under, such as ``4.3``."""

    url: str
    version: str

    @property
    def series(self) -> str:
        return ".".join(self.version.split(".")[:2])


@contextlib.contextmanager
def running(series: str, urls: Mapping[str, str]) -> Iterator[Broker]:
    """A broker of *series*: the one at ``urls[series]`` if there is one, else a private node for the time being."""
    if series in urls:
        yield Broker(urls[series], queues.server_version(urls[series]))
        return
    folder = SCRATCH / f"node-{series}"
    # What the last one held is of no use; and a quorum queue that was deleted just before its node was stopped cannot
    # be declared again on 3.10.
    PrivateBroker(folder).kill()
    shutil.rmtree(folder, ignore_errors=True)
    with PrivateBroker(folder, INSTALLATIONS[series]) as node:
        yield Broker(node.amqp_url, node.version)
