"""The operating system's side of a private RabbitMQ node: scripts, environment, processes, first answer."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import BrokerError, ConfigError
from penstock.testing.broker_files import NodeState
from penstock.testing.free_ports import LOOPBACK

#: Names the folder of RabbitMQ's own scripts where it is not the one of Debian, Ubuntu and the RPM packages.
SCRIPTS_VARIABLE = "PENSTOCK_RABBITMQ_BIN"
_SCRIPTS = "/usr/lib/rabbitmq/bin"

# In a mount namespace of its own, so that the mounts end with the process, however it ends.
_ENTER = """\
mount --bind "$1" "$2/srv" && mount -t proc proc "$2/proc" && mount --rbind /dev "$2/dev" || exit
root=$2; shift 2; exec chroot "$root" env --chdir=/srv "$@"
"""

# RabbitMQ does not start without an epmd, the daemon by which Erlang nodes find each other. One that Erlang starts by
# itself is shared by all nodes of the machine and outlives them; this one is a child of the node and ends with it.
_WITH_EPMD = 'setpriv --pdeathsig KILL epmd & exec "$0" "$@"'

# A parent that ended before the kernel was told of the tie is one whose end the kernel never tells.
_IF_NOT_ORPHANED = '[ "$PPID" = "$0" ] && exec "$@"'

_GREETING = b"AMQP\x00\x00\x09\x01"


@dataclass(frozen=True, slots=True)
class Installation:
    """One installed RabbitMQ: the host's own (*root* None) or that of a Debian tree to chroot into."""

    root: Path | None = None

    @classmethod
    def of(cls, version: str | Path) -> Installation:
        """Find ``"host"`` or the tree at a path. Raises ``ConfigError`` saying what to install."""
        found = cls(None if version == "host" else Path(version))
        if not found._script("rabbitmq-server").exists():
            raise ConfigError(found._missing())
        if found.root is not None and os.geteuid() != 0:
            raise ConfigError(f"only root can run the RabbitMQ in {found.root}: it has to chroot there")
        return found

    def tool(self, program: str, folder: Path) -> list[str]:
        """The words that run RabbitMQ's *program* with *folder* as the node's folder."""
        if self.root is None:
            return [str(self._script(program))]
        return [*self._enter(folder), f"{_SCRIPTS}/{program}"]

    def server(self, folder: Path) -> list[str]:
        """The words that run the node of *folder*, together with an epmd of its own."""
        *enter, script = self.tool("rabbitmq-server", folder)
        return [*enter, "sh", "-c", _WITH_EPMD, script, "-noinput"]

    def libraries(self) -> tuple[Path, Path]:
        """The folder of RabbitMQ's own libraries and plugins, here and as the node itself sees it."""
        here = self._script("rabbitmq-server").resolve().parent.parent / "plugins"
        return here, here if self.root is None else Path("/", here.relative_to(self.root.resolve()))

    def seen(self, folder: Path) -> Path:
        """The node's *folder* as the node itself sees it."""
        return folder if self.root is None else Path("/srv")

    def _enter(self, folder: Path) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", _ENTER, "sh", str(folder), str(self.root)]

    def _script(self, program: str) -> Path:
        if self.root is None:
            return Path(os.environ.get(SCRIPTS_VARIABLE, _SCRIPTS)) / program
        return self.root / _SCRIPTS.lstrip("/") / program

    def _missing(self) -> str:
        if self.root is None:
            return (
                "RabbitMQ is not installed: `apt-get install rabbitmq-server` on Debian or Ubuntu, "
                f"or name the folder of its scripts in {SCRIPTS_VARIABLE}"
            )
        return f"there is no RabbitMQ in {self.root}: make that tree with infra/scripts/chroot-broker"


def environment(state: NodeState, folder: Path) -> dict[str, str]:
    """The environment of a node in *folder*: nothing of the caller's, nothing of the host's own broker."""
    return {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(state.ports.epmd),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_CRASH_DUMP_SECONDS": "0",
        "RABBITMQ_NODENAME": state.node,
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_DIST_PORT": str(state.ports.distribution),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(folder / "conf.d" / "*.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
    }


def server_environment(state: NodeState, folder: Path) -> dict[str, str]:
    """The environment of the server: it becomes the Erlang machine itself instead of a shell that waits for one."""
    return environment(state, folder) | {
        "ERL_FLAGS": "-start_epmd false",
        "RABBITMQ_ALLOW_INPUT": "1",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
    }


def tool_environment(state: NodeState, folder: Path) -> dict[str, str]:
    """The environment of rabbitmqctl and its like: they call the node and listen on nothing themselves."""
    return environment(state, folder) | {"ERL_FLAGS": "-start_epmd false -dist_listen false"}


def tied_to_parent(command: Sequence[str]) -> list[str]:
    """*command*, told by the kernel to stop when the thread of this process that starts it ends."""
    return ["setpriv", "--pdeathsig", "TERM", "sh", "-c", _IF_NOT_ORPHANED, str(os.getpid()), *command]


def is_node(pid: int, node: str) -> bool:
    """Whether process *pid* is alive and belongs to *node*. A pid used anew by another program is not."""
    try:
        held = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"RABBITMQ_NODENAME={node}".encode() in held.split(b"\0")


def processes_of(node: str) -> Mapping[int, str]:
    """Every process of *node*, the Erlang machine and its helpers, by pid with its name."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return {pid: _name(pid) for pid in pids if is_node(pid, node)}


def send(pid: int, node: str, number: signal.Signals) -> None:
    """Send a signal to *pid* if it is *node*'s; nothing happens otherwise."""
    if is_node(pid, node):
        os.kill(pid, number)


def greet(port: int, seconds: float) -> str:
    """Open an AMQP connection on *port* and return the version the broker greets with.

    Raises ``OSError`` while nobody answers, ``BrokerError`` when what answers is no RabbitMQ.
    """
    with socket.create_connection((LOOPBACK, port), timeout=seconds) as connection:
        connection.sendall(_GREETING)
        start = connection.recv(4096)
    _, found, rest = start.partition(b"\x07versionS")
    if not found:
        raise BrokerError(f"what listens on {LOOPBACK}:{port} does not greet as a RabbitMQ")
    return rest[4 : 4 + int.from_bytes(rest[:4])].decode()


def wait_gone(pid: int, node: str, seconds: float) -> bool:
    """Wait until *pid* is no longer *node*; False when it still is after *seconds*."""
    until = time.monotonic() + seconds
    while is_node(pid, node):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"
