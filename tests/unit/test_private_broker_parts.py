"""The private broker's parts that need no broker: its folder, its ports, and what it says when it cannot start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from penstock.errors import BrokerError, ConfigError
from penstock.testing.broker_files import ADVANCED, NodeFolder
from penstock.testing.broker_libraries import link, needed
from penstock.testing.broker_node import PrivateBroker
from penstock.testing.broker_process import SCRIPTS_VARIABLE, Installation, tied_to_parent
from penstock.testing.free_ports import free_ports
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


def application(installed: Path, name: str, *needs: str) -> None:
    """An installed application, as Erlang describes it."""
    folder = installed / f"{name}-1.2.3" / "ebin"
    folder.mkdir(parents=True)
    said = f"{{application,{name},\n [{{applications, [kernel,\n {', '.join(needs)}]}}]}}."
    (folder / f"{name}.app").write_text(said)


def test_a_node_is_given_the_libraries_of_its_plugins_and_all_that_those_need(tmp_path: Path) -> None:
    installed = tmp_path / "rabbitmq_server-3.10.8" / "plugins"
    for name, *needs in (("rabbit", "ra"), ("ra",), ("rabbitmq_prelaunch", "rabbit"), ("top", "web"), ("web", "ra")):
        application(installed, name, "stdlib", *needs)
    application(installed, "mqtt", "rabbit")
    assert needed(installed, ["top", "unknown"]) == [
        f"{name}-1.2.3" for name in ("ra", "rabbit", "rabbitmq_prelaunch", "top", "web")
    ]


@pytest.mark.parametrize("series", ["rabbitmq_server-4.0.5", "elsewhere"])
def test_where_nothing_is_gained_or_known_a_node_looks_wherever_it_always_does(tmp_path: Path, series: str) -> None:
    application(tmp_path / series / "plugins", "rabbit")
    application(tmp_path / series / "plugins", "rabbitmq_prelaunch")
    assert needed(tmp_path / series / "plugins", []) == []
    assert needed(tmp_path / "rabbitmq_server-3.10.8" / "plugins", []) == []


def test_links_to_libraries_are_made_anew_at_each_start(tmp_path: Path) -> None:
    link(tmp_path / "libraries", Path("/installed"), ["rabbit-1", "top-1"])
    link(tmp_path / "libraries", Path("/installed"), ["rabbit-1"])
    assert [path.readlink() for path in (tmp_path / "libraries").iterdir()] == [Path("/installed/rabbit-1")]


def test_a_port_is_given_to_one_process_at_a_time_though_nobody_listens_on_it_yet(tmp_path: Path) -> None:
    ask = "from penstock.testing.free_ports import free_ports; print(*free_ports(400))"
    settings = {**os.environ, "TMPDIR": str(tmp_path)}
    many = [subprocess.Popen([sys.executable, "-c", ask], env=settings, stdout=subprocess.PIPE) for _ in range(8)]
    given = [port for process in many for port in process.communicate(timeout=30)[0].split()]
    assert len(given) == len(set(given)) == 8 * 400


def test_ports_are_given_though_the_file_about_them_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    free_ports(1)
    [file] = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert len(free_ports(3)) == 3
    assert len(orjson.loads(file.read_bytes())) == 3


def test_a_port_given_long_ago_may_be_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    free_ports(2)
    [file] = tmp_path.iterdir()
    file.write_bytes(orjson.dumps(dict.fromkeys(orjson.loads(file.read_bytes()), time.time() - 901)))
    free_ports(1)
    assert len(orjson.loads(file.read_bytes())) == 1
