"""Fixtures that give tests a real PostgreSQL: one per run, a database per test, or a server a test may kill."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg
import pytest

from penstock.testing.free_ports import LOOPBACK, free_ports

_BINARIES = Path("/usr/lib/postgresql")

#: Nobody but the tests on this machine reaches it, so nobody is asked for a password.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "shared_buffers": "32MB",
    "max_connections": "200",
    "max_wal_size": "256MB",
    "logging_collector": "off",
    # What the server wrote outlives its SIGKILL in the kernel's cache; only a crash of the machine would tell.
    "fsync": "off",
    "full_page_writes": "off",
}

_START_WITHIN = 30.0
_STOP_WITHIN = 20.0

# The first word is the pid of the process that wants it: should that have ended already, nobody tells the server.
_IF_NOT_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"'


class PrivatePostgres:
    """One PostgreSQL server with its data in a folder of its own, started and stopped at will; both outlive it.

    It ends with the thread that started it. Root runs it as user ``postgres``: it refuses to run as root. *settings*
    are those of postgresql.conf. ``remove`` takes the folder away, in which the log is, too.
    """

    def __init__(self, **settings: str) -> None:
        [self.port] = free_ports(1)
        # Not in pytest's own folder: only the user who runs the tests may enter that.
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-postgres-"))
        self._settings = _SETTINGS | settings
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        self._idle: list[str] = []
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(self._folder, account.pw_uid, account.pw_gid)

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        """The URL of one of its databases, valid across restarts."""
        return f"postgresql://{user}@{LOOPBACK}:{self.port}/{database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database. It is emptied and lent again: a new one costs 7 MB of the disk."""
        url = self._idle.pop() if self._idle else self.new_database()
        yield url
        self._empty(url)
        self._idle.append(url)

    def new_database(self) -> str:
        """The URL of a new database."""
        name = f"test_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str) -> None:
        """Run *statement* as the superuser, outside of any transaction."""
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement)

    def _empty(self, url: str) -> None:
        name = url.rpartition("/")[2]
        self.execute(f"ALTER DATABASE {name} RESET ALL")
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
            # As in a new database, so that no test depends on whether its own was lent before.
            connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")

    def ask_for_password(self, user: str) -> None:
        """Let *user* in with the right password only."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {user} {LOOPBACK}/32 scram-sha-256\n{rules.read_text()}")
        self.execute("SELECT pg_reload_conf()")

    def start(self) -> None:
        """Start it and return once it answers; nothing happens when it runs. A crash is recovered from first."""
        if self._process is not None and self._process.poll() is None:
            return
        if not self._data.exists():
            self._make()
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        server = [_binary("postgres"), "-D", str(self._data), "-p", str(self.port), "-k", str(self._folder), *options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_as_postgres(), *_tied_to_parent(server)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                start_new_session=True,
            )
        self._await_answer(self._process)

    def stop(self) -> None:
        """Shut it down in order, cutting off whoever is connected. Idempotent."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it and all its processes with SIGKILL, as a crash of its machine would. Idempotent."""
        pids = self._stopped()
        _send(pids, signal.SIGKILL)
        self._end(signal.SIGKILL)
        # A child that still holds the shared memory would keep the next server from starting.
        until = time.monotonic() + _STOP_WITHIN
        while any(map(_is_alive, pids)):
            assert time.monotonic() < until, "postgres was killed and still runs"
            time.sleep(0.01)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """All its processes stopped in their tracks, its connections open."""
        pids = self._stopped()
        try:
            yield
        finally:
            _send(pids, signal.SIGCONT)

    def remove(self) -> None:
        """End it and take its folder away. Idempotent."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def _log(self) -> Path:
        return self._folder / "postgres.log"

    def _make(self) -> None:
        command = [_binary("initdb"), "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"]
        made = subprocess.run(
            [*_as_postgres(), *command, "--locale=C.UTF-8", "-D", str(self._data)],
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert made.returncode == 0, f"initdb failed:\n{made.stdout}{made.stderr}"

    def _stopped(self) -> Sequence[int]:
        """The server, stopped first so that it starts no further children, and its children, stopped."""
        if self._process is None or self._process.poll() is not None:
            return []
        parent = self._process.pid
        _send([parent], signal.SIGSTOP)
        children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        _send(children, signal.SIGSTOP)
        return [parent, *children]

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_STOP_WITHIN)

    def _await_answer(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + _START_WITHIN
        while not self._answers():
            assert process.poll() is None, f"postgres ended at its start:\n{self._log.read_text()}"
            assert time.monotonic() < until, f"postgres did not answer in time:\n{self._log.read_text()}"
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


def _send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # a child may end meanwhile
            os.kill(pid, number)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _binary(program: str) -> str:
    found = sorted(_BINARIES.glob(f"*/bin/{program}"), key=lambda path: float(path.parts[-3]))
    if found:
        return str(found[-1])
    path = shutil.which(program)
    assert path is not None, "there is no PostgreSQL: `apt-get install postgresql` on Debian or Ubuntu"
    return path


def _as_postgres() -> list[str]:
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []


def _tied_to_parent(command: Sequence[str]) -> list[str]:
    """*command*, told by the kernel to shut down fast when the thread that starts it ends."""
    return ["setpriv", "--pdeathsig", "INT", "sh", "-c", _IF_NOT_ORPHANED, str(os.getpid()), *command]


StartPostgres = Callable[..., PrivatePostgres]


def sleeps(url: str) -> bool:
    """Whether somebody's statement in the database is asleep."""
    with psycopg.connect(url) as outside:
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        return outside.execute(sleeping).fetchone() is not None


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PrivatePostgres]:
    """The server all tests share. Do not stop it, and keep to your own database."""
    server = PrivatePostgres()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def postgres_url(postgres_server: PrivatePostgres) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def own_postgres() -> Iterator[StartPostgres]:
    """Start servers of the test's own, which it may kill and start again: ``own_postgres(fsync="off")``."""
    servers: list[PrivatePostgres] = []

    def start(**settings: str) -> PrivatePostgres:
        servers.append(PrivatePostgres(**settings))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.remove()
