"""From a URL to a broker: the one place that knows which driver carries what."""

from __future__ import annotations

import os

from penstock.ports import Broker
from penstock.urls import BrokerUrl, from_env


def broker_for(url: str | BrokerUrl | None = None) -> Broker:
    """The broker at *url*; when None, the one the environment names (``RABBITMQ_URL`` and its fallbacks).

    Nothing is connected yet. Raises ``ConfigError`` for a URL that cannot be read.
    """
    from penstock.brokers.pika_driver import PikaBroker

    return PikaBroker(_parsed(url))


def _parsed(url: str | BrokerUrl | None) -> BrokerUrl:
    if url is None:
        return from_env(os.environ)
    return BrokerUrl.parse(url) if isinstance(url, str) else url
