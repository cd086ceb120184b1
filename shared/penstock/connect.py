"""From a URL to a broker or a store: the one place that knows which driver carries what."""

from __future__ import annotations

import os
from datetime import timedelta

from penstock.claiming import RETENTION
from penstock.claims import StoreUrl
from penstock.errors import ConfigError
from penstock.ports import Broker
from penstock.relaying import Outbox
from penstock.secret_files import secret_from
from penstock.storing import Store
from penstock.urls import BrokerUrl, from_env


def broker_for(url: str | BrokerUrl | None = None) -> Broker:
    """The broker at *url*; when None, the one the environment names (``RABBITMQ_URL`` and its fallbacks).

    Nothing is connected yet. Raises ``ConfigError`` for a URL that cannot be read.
    """
    from penstock.brokers.pika_driver import PikaBroker

    return PikaBroker(_parsed(url))


#: The variable that names the store (with ``_FILE``: the file that does), and what it is where nothing says otherwise.
STORE_VARIABLE = "PENSTOCK_STORE_URL"
STORE = "sqlite:///penstock.db"


def store_for(url: str | StoreUrl | None = None, *, connections: int = 16, retention: timedelta = RETENTION) -> Store:
    """The store at *url*; when None, the one the environment names (``PENSTOCK_STORE_URL``), else a local file.

    *connections*: how many effects may be under way at once. *retention*: after which Redis forgets a record by itself;
    the others are told by their workers. Nothing is opened yet. Raises ``ConfigError`` for a URL
    that cannot be read, and for a driver that is not installed.
    """
    where = url or secret_from(os.environ, STORE_VARIABLE) or STORE
    parsed = StoreUrl.parse(where) if isinstance(where, str) else where
    if parsed.scheme == "sqlite":
        from penstock.stores.sqlite import SqliteStore

        return SqliteStore(parsed)
    try:
        if parsed.scheme == "postgresql":
            from penstock.stores.postgres import PostgresStore

            return PostgresStore(parsed, connections=connections)
        from penstock.stores.redis_store import RedisStore

        return RedisStore(parsed, retention=retention)
    except ModuleNotFoundError as error:
        extra = "postgres" if parsed.scheme == "postgresql" else "redis"
        raise ConfigError(f"{parsed.shown} needs {error.name}: pip install 'penstock[{extra}]'") from None


def outbox_for(url: str | StoreUrl | None = None, *, connections: int = 4) -> Outbox:
    """The outbox in the store at *url*, as relays use it; otherwise as ``store_for``.

    *connections*: how many kinds may be relayed at once. Raises ``ConfigError`` also for a store that holds no outbox.
    """
    where = url or secret_from(os.environ, STORE_VARIABLE) or STORE
    parsed = StoreUrl.parse(where) if isinstance(where, str) else where
    if parsed.scheme == "sqlite":
        from penstock.stores.outbox_sqlite import SqliteOutbox

        return SqliteOutbox(parsed)
    if parsed.scheme != "postgresql":
        raise ConfigError(f"{parsed.shown} holds no outbox: that takes transactions, so sqlite:// or postgresql://")
    try:
        from penstock.stores.outbox_postgres import PostgresOutbox

        return PostgresOutbox(parsed, connections=connections)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{parsed.shown} needs {error.name}: pip install 'penstock[postgres]'") from None


def _parsed(url: str | BrokerUrl | None) -> BrokerUrl:
    if url is None:
        return from_env(os.environ)
    return BrokerUrl.parse(url) if isinstance(url, str) else url
