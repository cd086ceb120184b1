"""A private RabbitMQ node for development and tests, independent of every other node on the machine."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote

from penstock.errors import BrokerError, ConfigError
from penstock.testing.broker_files import ADVANCED, PLUGINS, USER, NodeFolder, NodeState, Ports
from penstock.testing.broker_libraries import link, needed, variables
from penstock.testing.broker_process import (
    Installation,
    greet,
    is_node,
    send,
    server_environment,
    tied_to_parent,
    tool_environment,
    wait_gone,
)
from penstock.testing.free_ports import LOOPBACK

#: How long a start, a stop and a rabbitmqctl command may take (seconds).
START_WITHIN = 60.0
STOP_WITHIN = 20.0
TOOL_WITHIN = 90.0

#: What a node says that finds somebody on one of its ports, and how often a new one is given others.
_PORT_TAKEN = "could_not_start_listener"
_PORT_TRIES = 3


@dataclass(frozen=True, slots=True)
class BrokerInfo:
    """A node that runs: where it listens and who may log in."""

    node: str
    pid: int
    version: str
    ports: Ports
    folder: Path
    password: str = field(repr=False)
    user: str = USER
    host: str = LOOPBACK

    @property
    def amqp_url(self) -> str:
        """The URL of the default vhost, password and all."""
        return self.url_for("/")

    @property
    def management_url(self) -> str:
        """Where the management UI and its HTTP API answer, without a login."""
        return f"http://{self.host}:{self.ports.management}"

    @property
    def url_file(self) -> Path:
        """The file that holds ``amqp_url``, for ``RABBITMQ_URL_FILE``."""
        return NodeFolder(self.folder).url_file

    @property
    def env_file(self) -> Path:
        """A file for a shell to read (``. FILE``), after which the other commands find the node and its management."""
        return NodeFolder(self.folder).env_file

    def url_for(self, vhost: str) -> str:
        """The AMQP URL of *vhost*, password and all."""
        path = "" if vhost == "/" else quote(vhost, safe="")
        return f"amqp://{self.user}:{self.password}@{self.host}:{self.ports.amqp}/{path}"


class PrivateBroker:
    """One RabbitMQ node in *directory*, started and stopped at will; data, ports and password outlive it there.

    *version* is ``"host"`` for the installed RabbitMQ or the path of a Debian tree that holds another (root only).
    Everything listens on the loopback address, the node's own epmd too. Unless *detached*, the node stops when the
    thread that started it ends. Any number of objects and processes may name the same folder; one node runs in it.

    *directory* is the node's working directory, and all that a node out of a Debian tree sees of this machine: files
    that *extra_conf* speaks of, such as certificates, are put there and named by their bare names.
    """

    def __init__(
        self,
        directory: Path,
        version: str | Path = "host",
        *,
        plugins: Sequence[str] = PLUGINS,
        extra_conf: str = "",
        advanced: str = ADVANCED,
        detached: bool = False,
    ) -> None:
        self._folder = NodeFolder(directory.resolve())
        self._version = version
        self._plugins = plugins
        self._extra_conf = extra_conf
        self._advanced = advanced
        self._detached = detached
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> BrokerInfo:
        """Start the node and return once it takes AMQP connections; a running one is returned as it is.

        Raises ``ConfigError`` when RabbitMQ is not installed, ``BrokerError`` with the end of the node's log as a note
        when it does not come up within 60 s.
        """
        installation = Installation.of(self._version)
        with self._alone():
            running = self.status()
            return running if running is not None else self._start(installation)

    def status(self) -> BrokerInfo | None:
        """The node of this folder if it runs, whoever started it, else None."""
        self._reap()
        state = self._folder.load()
        if state is None or state.pid is None or state.version is None or not is_node(state.pid, state.node):
            return None
        return BrokerInfo(state.node, state.pid, state.version, state.ports, self._folder.path, self._folder.password())

    def stop(self) -> None:
        """Shut the node down in order, whoever started it, and return once it is gone. Idempotent."""
        self._end(signal.SIGTERM, STOP_WITHIN)

    def kill(self) -> None:
        """End the node with SIGKILL, as a crash would, and return once it is gone. Idempotent."""
        self._end(signal.SIGKILL, STOP_WITHIN)

    def wait(self) -> int:
        """Block until the node this very object started ends; 0 when it was stopped in order, whoever did it."""
        if self._process is None:
            raise BrokerError(f"the RabbitMQ node in {self._folder.path} was not started here")
        return self._process.wait()

    def ctl(self, *arguments: str, program: str = "rabbitmqctl") -> str:
        """Run rabbitmqctl (or another of RabbitMQ's tools) on the node and return what it says.

        Raises ``BrokerError`` when no node runs, and with the tool's own words when it fails or takes more than 90 s.
        """
        state = self._running()
        installation = _installation_of(state)
        command = [*installation.tool(program, self._folder.path), *arguments]
        settings = tool_environment(state, installation.seen(self._folder.path))
        try:
            done = subprocess.run(
                command, env=settings, capture_output=True, text=True, timeout=TOOL_WITHIN, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise BrokerError(f"{program} {' '.join(arguments)} did not answer within {TOOL_WITHIN:.0f} s") from error
        if done.returncode:
            raise BrokerError(f"{program} {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def __enter__(self) -> BrokerInfo:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BrokerError(f"another process is starting the node in {self._folder.path}") from error
            yield

    def _start(self, installation: Installation) -> BrokerInfo:
        root = None if installation.root is None else str(installation.root)
        state = self._folder.prepare(root)
        if state.root != root:
            raise ConfigError(
                f"{self._folder.path} belongs to the RabbitMQ in {state.root or 'the host'}; use another folder"
            )
        for _ in range(_PORT_TRIES):
            try:
                return self._boot(installation, state)
            except BrokerError as error:
                if state.version is not None or _PORT_TAKEN not in "".join(error.__notes__):
                    raise
                state = self._folder.move(state)  # nobody knows its ports yet
        return self._boot(installation, state)

    def _boot(self, installation: Installation, state: NodeState) -> BrokerInfo:
        self._folder.configure(state, self._plugins, self._extra_conf, self._advanced)
        process = self._spawn(installation, state)
        self._folder.save(replace(state, pid=process.pid, version=None))
        try:
            version = self._await_greeting(process, state)
        except BaseException:  # Ctrl-C too
            self.kill()
            self._folder.save(state)
            raise
        self._folder.save(replace(state, pid=process.pid, version=version))
        return BrokerInfo(state.node, process.pid, version, state.ports, self._folder.path, self._folder.password())

    def _only_needed(self, installation: Installation) -> dict[str, str]:
        """Variables for the node to look only for libraries that it needs, where that saves time."""
        here, seen = installation.libraries()
        # The settings of the usual plugins are in every configuration.
        names = needed(here, {*PLUGINS, *self._plugins})
        link(self._folder.libraries, seen, names)
        return variables(installation.seen(self._folder.path) / self._folder.libraries.name, seen) if names else {}

    def _spawn(self, installation: Installation, state: NodeState) -> subprocess.Popen[bytes]:
        settings = server_environment(state, installation.seen(self._folder.path)) | self._only_needed(installation)
        command = installation.server(self._folder.path)
        with self._folder.console.open("wb") as console:
            self._process = subprocess.Popen(
                command if self._detached else tied_to_parent(command),
                env=settings,
                cwd=self._folder.path,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self._process

    def _await_greeting(self, process: subprocess.Popen[bytes], state: NodeState) -> str:
        until = time.monotonic() + START_WITHIN
        while time.monotonic() < until:
            if process.poll() is not None:
                raise self._not_started(f"ended with exit code {process.returncode}")
            try:
                return greet(state.ports.amqp, 1.0)
            except OSError:
                time.sleep(0.02)
        raise self._not_started(f"took no connection within {START_WITHIN:.0f} s")

    def _not_started(self, why: str) -> BrokerError:
        error = BrokerError(f"the RabbitMQ node in {self._folder.path} {why}; what it said is in {self._folder.log}")
        error.add_note(self._folder.last_words())
        return error

    def _end(self, number: signal.Signals, seconds: float) -> None:
        state = self._folder.load()
        if state is None or state.pid is None:
            return
        send(state.pid, state.node, number)
        if not self._gone(state.pid, state.node, seconds):
            send(state.pid, state.node, signal.SIGKILL)
            self._gone(state.pid, state.node, STOP_WITHIN)
        self._folder.save(replace(state, pid=None))

    def _gone(self, pid: int, node: str, seconds: float) -> bool:
        if self._process is None or self._process.pid != pid:
            return wait_gone(pid, node, seconds)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _reap(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._process = None

    def _running(self) -> NodeState:
        # The tools of 4.x start an epmd where they find none and leave it behind: call them only while there is one.
        state = self._folder.load()
        if state is None or self.status() is None:
            raise BrokerError(f"no RabbitMQ node runs in {self._folder.path}")
        return state


def _installation_of(state: NodeState) -> Installation:
    return Installation.of("host" if state.root is None else Path(state.root))
