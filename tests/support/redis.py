"""Fixtures that give tests a real Redis: one per run, a database per test, or a server a test may kill."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock.testing.broker_process import tied_to_parent
from penstock.testing.free_ports import LOOPBACK, free_ports

#: How many tests of one run may have a database of their own.
_DATABASES = 10_000

#: Safe and on the loopback; a test's own settings come after and win.
_SETTINGS = {
    "bind": LOOPBACK,
    "databases": str(_DATABASES),
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": '""',
    "maxmemory": "0",
}

_START_WITHIN = 20.0
_STOP_WITHIN = 10.0


class PrivateRedis:
    """One Redis server with its data in *folder*, started and stopped at will; data and port outlive it.

    It ends with the thread that started it. *settings* are directives of redis.conf, ``_`` for ``-``.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        [self.port] = free_ports(1)
        self._folder = folder
        self._settings = _SETTINGS | {name.replace("_", "-"): value for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL, valid across restarts, with the password it asks for."""
        login = f":{password}@" if (password := self._settings.get("requirepass")) else ""
        return f"redis://{login}{LOOPBACK}:{self.port}/0"

    def database(self, number: int) -> str:
        """The URL of another of its databases."""
        return f"{self.url.rpartition('/')[0]}/{number}"

    def start(self) -> None:
        """Start it and return once it answers, its data read; nothing happens when it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        server = shutil.which("redis-server")
        assert server is not None, "there is no redis-server: `apt-get install redis-server` on Debian or Ubuntu"
        lines = [f"port {self.port}", f'dir "{self._folder}"', *(" ".join(pair) for pair in self._settings.items())]
        (self._folder / "redis.conf").write_text("\n".join(lines) + "\n")
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                tied_to_parent([server, str(self._folder / "redis.conf")]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await_answer(self._process)

    def stop(self) -> None:
        """Shut it down in order. Idempotent."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would. Idempotent."""
        self._end(signal.SIGKILL)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Its process stopped in its tracks, its connections open."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._process.pid, signal.SIGCONT)

    def ask(self, *words: str, database: int = 0) -> str:
        """What redis-cli, an eye of its own, prints for a command; raises when Redis answers with an error."""
        login = {"REDISCLI_AUTH": password} if (password := self._settings.get("requirepass")) else {}
        command = ["redis-cli", "-e", "-h", LOOPBACK, "-p", str(self.port), "-n", str(database), *words]
        done = subprocess.run(
            command, env=os.environ | login, capture_output=True, text=True, timeout=_STOP_WITHIN, check=True
        )
        return done.stdout.strip()

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self._folder

    @property
    def _log(self) -> Path:
        return self._folder / "redis.log"

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_STOP_WITHIN)

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _START_WITHIN
        while not self._answers():
            assert process.poll() is None, f"redis-server ended at its start:\n{self._log.read_text()}"
            assert time.monotonic() < until, f"redis-server did not answer in time:\n{self._log.read_text()}"
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))  # not -LOADING
        except OSError:
            return False


StartRedis = Callable[..., PrivateRedis]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    """The server all tests share. Do not stop it, and keep to your own database."""
    server = PrivateRedis(tmp_path_factory.mktemp("redis"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="session")
def redis_numbers() -> Iterator[int]:
    """Numbers of databases nobody has used in this run; 0 stays with ``redis_server.url``."""
    return iter(range(1, _DATABASES))


@pytest.fixture
def redis_url(redis_server: PrivateRedis, redis_numbers: Iterator[int]) -> str:
    """The URL of an empty database of the test's own."""
    return redis_server.database(next(redis_numbers))


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartRedis]:
    """Start servers of the test's own, which it may kill and start again: ``own_redis(appendonly="no")``."""
    servers: list[PrivateRedis] = []

    def start(**settings: str) -> PrivateRedis:
        servers.append(PrivateRedis(tmp_path_factory.mktemp("own-redis"), **settings))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
