"""Where the demo keeps things: which broker, which folder, which names."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import orjson

from penstock.settings import BROKER_VARIABLES
from penstock.testing.broker_node import PrivateBroker
from penstock.urls import BrokerUrl, from_env

HOME = Path(".penstock")

_KEPT = 9


@dataclass(frozen=True, slots=True)
class BrokerPlace:
    """A broker that can be used, and how a person gets to it."""

    url: BrokerUrl
    words: str
    management: str
    #: Where the password is written, in words.
    password: str
    #: What other processes need in their environment to find the broker.
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Where its Prometheus plugin answers, by ``host:port``.
    metrics: str = ""
    #: Whether it is the demo's own.
    private: bool = False


@contextmanager
def broker(say: Callable[[str], None], home: Path = HOME) -> Iterator[BrokerPlace]:
    """The broker that the environment names, else a private one in *home* that runs at least as long as the block.

    A private one that ran before runs on after it; its data stay either way. *say* hears what takes time. Call it on
    the main thread. Raises ``ConfigError``, ``BrokerError``.
    """
    if any(os.environ.get(name, "").strip() for name in BROKER_VARIABLES):
        yield _named(from_env(os.environ))
        return
    node = PrivateBroker(home / "broker")
    ran_before = node.status() is not None
    try:
        if not ran_before:
            say("starting a private RabbitMQ")
        info = node.start()
        words = f"private RabbitMQ {info.version} in {info.folder}"
        environment = {"RABBITMQ_URL_FILE": str(info.url_file), "RABBITMQ_MANAGEMENT_URL": info.management_url}
        password = f"in {info.folder / 'password'}"
        metrics = f"{info.host}:{info.ports.prometheus}"
        url = BrokerUrl.parse(info.amqp_url)
        yield BrokerPlace(url, words, info.management_url, password, environment, metrics, private=True)
    finally:
        if not ran_before:
            node.stop()


def _named(url: BrokerUrl) -> BrokerPlace:
    management = os.environ.get("RABBITMQ_MANAGEMENT_URL") or f"http://{url.host}:15672"
    return BrokerPlace(
        url, f"the broker at {url.masked}", management, "the one in your broker URL", metrics=f"{url.host}:15692"
    )


@dataclass(frozen=True, slots=True)
class RunPlace:
    """The files of one run of the demo."""

    run: str
    folder: Path

    @classmethod
    def fresh(cls, home: Path = HOME) -> RunPlace:
        """A new run with a folder of its own; of earlier ones the newest few are kept."""
        for old in sorted((home / "demo").glob("demo-*"))[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        run = f"demo-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        folder = (home / "demo" / run).resolve()
        folder.mkdir(parents=True)
        return cls(run, folder)

    def prepare(self) -> None:
        """Make what the services expect to find."""
        for folder in (self.sources, self.media / "source", self.media / "output"):
            folder.mkdir(parents=True)
        reports = {"path": str(self.outputs), "files": ["*.csv", "*.pdf", ".*.part"], "keep": "90d"}
        self.rules.write_bytes(orjson.dumps({"folders": {"reports": reports}}))  # JSON is YAML too

    @property
    def book(self) -> Path:
        """The mails that the sink took."""
        return self.folder / "mails.ndjson"

    @property
    def orders(self) -> Path:
        """The orders to be submitted."""
        return self.folder / "orders.csv"

    @property
    def receipts(self) -> Path:
        """The jobs that the broker confirmed to the orders service."""
        return self.folder / "receipts.ndjson"

    @property
    def schedules(self) -> Path:
        """What comes by the clock."""
        return self.folder / "schedules.yaml"

    @property
    def sources_of_sync(self) -> Path:
        """Where the sync pulls from."""
        return self.folder / "sync.yaml"

    @property
    def rules(self) -> Path:
        """What the janitor deletes."""
        return self.folder / "rules.yaml"

    @property
    def media(self) -> Path:
        """Pictures and videos, and what is made of them."""
        return self.folder / "media"

    @property
    def sources(self) -> Path:
        """The orders by region, for the reports service."""
        return self.folder / "source"

    @property
    def outputs(self) -> Path:
        """The reports, in a folder for each submission."""
        return self.folder / "reports"

    @property
    def store(self) -> Path:
        """The store of the mailers and credits workers, which holds the ledger too."""
        return self.folder / "store.db"

    @property
    def store_url(self) -> str:
        """The store as workers are told of it."""
        return f"sqlite:///{self.store}"

    @property
    def reports(self) -> Path:
        """The reports of this run's own submission."""
        return self.outputs / self.run
