"""The databases of the benchmark: private servers, started when needed, with an empty store or a well filled one."""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from penstock.connect import store_for
from tests.bench import filling
from tests.support.postgres import PrivatePostgres
from tests.support.redis import PrivateRedis

#: As durable as installed (the tests' own servers are not); what is measured stays in memory, and the log has room.
_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
_POSTGRES = _DURABLE | {"shared_buffers": "512MB", "max_wal_size": "4GB", "max_connections": "300"}
#: Its log is not written anew in the midst of a measurement.
_REDIS = {"auto_aof_rewrite_percentage": "0"}

#: The databases of the Redis: the one that keeps its marks, and the first of those that are emptied each time.
_KEPT, _EMPTIED = 1, 2
#: Those who may have a store that is new at the same time: Penstock, and who does it by hand in one way or another.
OWNERS = ("penstock", "hand", "hand2")


class Stores:
    """Databases for one run of the benchmark; at the end of the block the servers and all they hold are gone."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._full: dict[str, str] = {}

    def __enter__(self) -> Stores:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def prepared(self, store: str, marks: int = 0, owner: str = OWNERS[0]) -> str:
        """The URL of a *store* with tables, accounts of balance 0, and *marks* of earlier jobs. Without marks it is a
        new one, and the *owner*'s before is gone; one that has them is kept, and so are the marks that are added.
        """
        if not marks:
            url = self._with_tables(self._emptied(store, owner))
        elif store in self._full:
            url = self._full[store]
        else:
            url = self._full[store] = self._with_tables(self._kept(store))
            filling.add_marks(url, marks)
            assert filling.marked(url) == marks, f"{url} was not filled as it should be"
            os.sync()  # the disk is not to be busy with them in the first measurement
        filling.settle(url)
        return url

    def _emptied(self, store: str, owner: str) -> str:
        match store:
            case "postgres":
                return self._new_database(f"of_{owner}")
            case "sqlite":
                for file in self._folder.glob(f"of_{owner}.db*"):
                    file.unlink()
                return f"sqlite:///{self._folder}/of_{owner}.db"
            case _:
                number = _EMPTIED + OWNERS.index(owner)
                self._redis.ask("FLUSHDB", database=number)
                return self._redis.database(number)

    def _kept(self, store: str) -> str:
        match store:
            case "postgres":
                return self._new_database("kept")
            case "sqlite":
                return f"sqlite:///{self._folder}/kept.db"
            case _:
                return self._redis.database(_KEPT)

    def _new_database(self, name: str) -> str:
        self._postgres.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._postgres.execute(f"CREATE DATABASE {name}")
        return self._postgres.url(name)

    def _with_tables(self, url: str) -> str:
        asyncio.run(_migrated(url))
        if not url.startswith("redis"):
            filling.make_tables(url)
        return url

    @cached_property
    def _folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))

    @cached_property
    def _postgres(self) -> PrivatePostgres:
        server = PrivatePostgres(**_POSTGRES)
        self._stack.callback(server.remove)
        server.start()
        return server

    @cached_property
    def _redis(self) -> PrivateRedis:
        server = PrivateRedis(self._folder, **_REDIS)
        self._stack.callback(server.kill)
        server.start()
        return server


async def _migrated(url: str) -> None:
    store = store_for(url)
    try:
        await store.migrate()
    finally:
        await store.close()
