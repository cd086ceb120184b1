"""What a private RabbitMQ node keeps in its folder: configuration, cookie, password and the state others find it by."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote

from penstock.errors import ConfigError
from penstock.testing.free_ports import LOOPBACK, free_ports

USER = "penstock"
PLUGINS = ("rabbitmq_management", "rabbitmq_prometheus", "rabbitmq_shovel", "rabbitmq_shovel_management")

#: Without the first, 32 dead letters that cannot move on hold up everything behind them in a delay queue. Without the
#: second, what fell due while the node started again waits three minutes for an answer that was never given.
ADVANCED = """\
[{rabbit, [
  {dead_letter_worker_consumer_prefetch, 1000},
  {dead_letter_worker_publisher_confirm_timeout, 15000}
]}].
"""

_LAST_LINES = 12

_CONFIGURATION = """\
listeners.tcp.1 = {host}:{amqp}
management.tcp.ip = {host}
management.tcp.port = {management}
prometheus.tcp.ip = {host}
prometheus.tcp.port = {prometheus}
default_user = {user}
default_pass = {password}
default_user_tags.administrator = true
log.console = false
log.file = node.log
# A small write-ahead log: the broker fills it with zeros at every start.
raft.wal_max_size_bytes = 33554432
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of one node, all on the loopback address."""

    amqp: int
    management: int
    prometheus: int
    distribution: int
    epmd: int


@dataclass(frozen=True, slots=True)
class NodeState:
    """What is written down about a node, so that another process finds it. *pid* is None while it is stopped."""

    node: str
    ports: Ports
    root: str | None = None
    pid: int | None = None
    version: str | None = None


class NodeFolder:
    """The folder of one private node. Everything in it is readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.configuration = path / "rabbitmq.conf"
        self.console = path / "console.log"
        self.log = path / "log" / "node.log"
        self.libraries = path / "libraries"
        self.password_file = path / "password"
        self.url_file = path / "url"
        self.env_file = path / "env"
        self._state = path / "state.json"

    def load(self) -> NodeState | None:
        """The state as last written, or None when no node was ever started here. Raises ``ConfigError`` on nonsense."""
        try:
            found = json.loads(self._state.read_text())
            return NodeState(**{**found, "ports": Ports(**found["ports"])})
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{self._state} cannot be read ({error}); delete the folder to start afresh") from error

    def save(self, state: NodeState) -> None:
        """Write *state* down, at once or not at all."""
        draft = self._state.with_suffix(".new")
        _write(draft, json.dumps(asdict(state), indent=2) + "\n")
        draft.replace(self._state)

    def password(self) -> str:
        """The password of the node's user."""
        return self.password_file.read_text().strip()

    def prepare(self, root: str | None) -> NodeState:
        """Return the folder's node, made up with a fresh name, free ports, password and cookie the first time."""
        known = self.load()
        if known is not None:
            return known
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(self.password_file, secrets.token_hex(16))  # rabbitmqctl takes one that begins with a dash for an option
        _write(self.path / ".erlang.cookie", secrets.token_hex(16), mode=0o400)
        state = NodeState(f"penstock-{secrets.token_hex(4)}@localhost", Ports(*free_ports(5)), root)
        self.save(state)
        return state

    def move(self, state: NodeState) -> NodeState:
        """Give the node of *state* other ports, for somebody took one of them before it could."""
        state = replace(state, ports=Ports(*free_ports(5)))
        self.save(state)
        return state

    def configure(self, state: NodeState, plugins: Sequence[str], extra: str, advanced: str) -> None:
        """Write the configuration the node reads at its next start."""
        settings = {"host": LOOPBACK, "user": USER, "password": self.password(), **asdict(state.ports)}
        _write(self.configuration, _CONFIGURATION.format_map(settings) + extra)
        _write(self.path / "advanced.config", advanced)
        _write(self.path / "enabled_plugins", f"[{','.join(plugins)}].\n")
        _write(self.path / "rabbitmq-env.conf", "")
        _write(self.url_file, f"amqp://{USER}:{self.password()}@{LOOPBACK}:{state.ports.amqp}/\n")
        variables = {
            "RABBITMQ_URL_FILE": str(self.url_file.resolve()),
            "RABBITMQ_MANAGEMENT_URL": f"http://{LOOPBACK}:{state.ports.management}",
        }
        _write(self.env_file, "".join(f"export {name}={quote(value)}\n" for name, value in variables.items()))

    def last_words(self) -> str:
        """What the node said before it gave up, without the Erlang terms it prints after that."""
        before, gave_up, after = (_read(self.console) or _read(self.log)).partition("BOOT FAILED")
        return "\n".join([*before.splitlines()[-_LAST_LINES:], *(gave_up + after).splitlines()[:_LAST_LINES]])


def _write(path: Path, text: str, mode: int = 0o600) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def _read(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
