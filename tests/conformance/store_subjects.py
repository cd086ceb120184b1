"""The stores that the conformance tests are run against, each with what only its own driver can do to it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Protocol

import psycopg
import redis

from penstock.claims import StoreUrl
from penstock.clock import Clock
from penstock.stores import schema
from penstock.stores.postgres import PostgresStore
from penstock.stores.redis_scripts import SCHEMA_KEY
from penstock.stores.redis_store import RedisStore
from penstock.stores.sqlite import SqliteStore
from penstock.storing import EffectStore, Store


class StoreSubject(Protocol):
    """A place for a store, empty at first. Any number of stores may be made for it; they share what they remember."""

    def make(self, clock: Clock | None = None) -> Store:
        """A store in this place, not opened; on the store's own clock without *clock*."""
        ...

    def set_version(self, version: int) -> None:
        """Let the schema, which is there, say that it is of *version*."""
        ...

    def drop(self) -> None:
        """Take away everything that ``migrate`` made."""
        ...

    def make_version_1(self) -> None:
        """Make what the first release of the library would have left: job ``job`` is done at ``credits``, with 5."""
        ...


_DONE = """INSERT INTO penstock_records (consumer, job_id, copy, state, token, until, result, claimed)
    VALUES ('credits', 'job', 0, 'done', 7, 0, '5', 0)"""

MakeStore = Callable[..., Store]
"""Makes stores in one place, as ``StoreSubject.make``."""


class EffectSubject(StoreSubject, Protocol):
    """A place whose database can hold effects."""

    @property
    def error(self) -> type[Exception]:
        """The root of its driver's errors."""
        ...

    def make(self, clock: Clock | None = None) -> EffectStore:
        """See ``StoreSubject.make``."""
        ...

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """What *statement* gives, run from outside in a transaction of its own."""
        ...


class SqliteSubject:
    """A file that does not exist yet."""

    error = sqlite3.Error

    def __init__(self, file: str) -> None:
        self._file = file

    def make(self, clock: Clock | None = None) -> SqliteStore:
        """See ``StoreSubject.make``."""
        return SqliteStore(StoreUrl.parse(f"sqlite:///{self._file}"), clock=clock)

    def set_version(self, version: int) -> None:
        """See ``StoreSubject.set_version``."""
        self.execute(f"UPDATE penstock_schema SET version = {version}")

    def drop(self) -> None:
        """See ``StoreSubject.drop``."""
        for [table] in self.execute("SELECT name FROM sqlite_master WHERE name LIKE 'penstock%' AND type = 'table'"):
            self.execute(f"DROP TABLE {table}")

    def make_version_1(self) -> None:
        """See ``StoreSubject.make_version_1``."""
        for statement in _version_1(schema.SQLITE):
            self.execute(statement)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """See ``EffectSubject.execute``."""
        with closing(sqlite3.connect(self._file, timeout=30)) as connection, connection:
            return connection.execute(statement).fetchall()


class PostgresSubject:
    """An empty database."""

    error = psycopg.Error

    def __init__(self, url: str) -> None:
        self._url = url

    def make(self, clock: Clock | None = None) -> PostgresStore:
        """See ``StoreSubject.make``."""
        return PostgresStore(StoreUrl.parse(self._url), clock=clock)

    def set_version(self, version: int) -> None:
        """See ``StoreSubject.set_version``."""
        self.execute(f"UPDATE penstock_schema SET version = {version}")

    def drop(self) -> None:
        """See ``StoreSubject.drop``."""
        self.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def make_version_1(self) -> None:
        """See ``StoreSubject.make_version_1``."""
        for statement in _version_1(schema.POSTGRES):
            self.execute(statement)

    def execute(self, statement: str) -> list[tuple[object, ...]]:
        """See ``EffectSubject.execute``."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            cursor = connection.execute(statement)
            return [] if cursor.rownumber is None else cursor.fetchall()


class RedisSubject:
    """An empty database of a Redis."""

    def __init__(self, url: str) -> None:
        self._url = url

    def make(self, clock: Clock | None = None) -> RedisStore:
        """See ``StoreSubject.make``."""
        return RedisStore(StoreUrl.parse(self._url), clock=clock)

    def set_version(self, version: int) -> None:
        """See ``StoreSubject.set_version``."""
        with redis.Redis.from_url(self._url) as client:
            client.set(SCHEMA_KEY, version)

    def drop(self) -> None:
        """See ``StoreSubject.drop``."""
        with redis.Redis.from_url(self._url) as client:
            client.flushdb()

    def make_version_1(self) -> None:
        """See ``StoreSubject.make_version_1``."""
        with redis.Redis.from_url(self._url) as client:
            client.set(SCHEMA_KEY, 1)
            client.hset("penstock:job:job", mapping={"at:credits": "0 done 7 0 0", "result:credits": "5"})
            client.zadd("penstock:done", {"7:creditsjob": 0})


def _version_1(steps: Sequence[Sequence[str]]) -> Sequence[str]:
    return [schema.VERSION_TABLE, "INSERT INTO penstock_schema VALUES (1)", *steps[0], _DONE]
