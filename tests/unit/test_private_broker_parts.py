"""The private broker's parts that need no broker: its folder, its ports, and what it says when it cannot start."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.errors import BrokerError, ConfigError
from penstock.testing.broker_files import ADVANCED, NodeFolder, free_ports
from penstock.testing.broker_node import PrivateBroker
from penstock.testing.broker_process import SCRIPTS_VARIABLE, Installation, tied_to_parent
from tests.support.commands import penstock


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no node."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_without_rabbitmq_one_line_says_what_to_install(tmp_path: Path) -> None:
    done = penstock("broker", "run", "--dir", str(tmp_path / "new"), **{SCRIPTS_VARIABLE: str(tmp_path)})
    assert (done.code, done.out, done.err.count("\n")) == (5, "", 1)
    assert "apt-get install rabbitmq-server" in done.err


def test_a_tree_without_rabbitmq_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no RabbitMQ in {tmp_path}.*chroot-broker"):
        Installation.of(tmp_path)


def test_where_no_node_runs_status_exits_3_and_stop_is_content(tmp_path: Path) -> None:
    status = penstock("broker", "status", "--dir", str(tmp_path))
    assert (status.code, status.out, status.err.count("\n")) == (3, "", 1)
    asked = penstock("broker", "status", "--dir", str(tmp_path), "--json")
    assert (asked.code, json.loads(asked.out)["running"]) == (3, False)
    stop = penstock("broker", "stop", "--dir", str(tmp_path))
    assert (stop.code, stop.err) == (0, "")


def test_tools_are_refused_where_no_node_runs(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="no RabbitMQ node runs"):
        PrivateBroker(tmp_path).ctl("status")


def test_stop_ends_nothing_when_the_recorded_pid_belongs_to_another(
    tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    folder = NodeFolder(tmp_path)
    folder.prepare(None)
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(state | {"pid": stranger.pid, "version": "3.10.8"}))

    assert PrivateBroker(tmp_path).status() is None
    PrivateBroker(tmp_path).stop()
    assert stranger.poll() is None


def test_a_damaged_state_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ConfigError, match=r"state\.json cannot be read"):
        PrivateBroker(tmp_path).status()


def test_a_folder_keeps_its_name_ports_and_password_and_shows_them_to_its_owner_only(tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path / "node")
    state = folder.prepare(None)
    folder.configure(state, (), "", ADVANCED)
    password = folder.password()

    assert folder.prepare(None) == state
    assert folder.password() == password
    open_to_others = [path for path in (tmp_path / "node").iterdir() if path.stat().st_mode & 0o077]
    assert open_to_others == []
    assert (tmp_path / "node").stat().st_mode & 0o077 == 0


def test_free_ports_differ_and_stay_below_those_of_outgoing_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < first


def test_what_is_tied_to_this_process_runs_but_not_when_its_parent_is_gone_already() -> None:
    tied = tied_to_parent(["echo", "runs"])
    assert subprocess.run(tied, capture_output=True, timeout=10, check=False).stdout == b"runs\n"
    adopted = ["sh", "-c", '"$@"; exit', "sh", *tied]
    assert subprocess.run(adopted, capture_output=True, timeout=10, check=False).stdout == b""
