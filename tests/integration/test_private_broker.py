"""The private broker survives a crash, keeps to itself, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import aio_pika
import pytest

from penstock.errors import BrokerError
from penstock.testing.broker_files import NodeFolder
from penstock.testing.broker_node import BrokerInfo, PrivateBroker
from penstock.testing.broker_process import greet, is_node, processes_of
from tests.support.brokers import StartBroker, on_disk
from tests.support.commands import penstock
from tests.support.waiting import wait_until

_LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
_LISTENING = "0A"


async def _put(url: str, body: bytes) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.declare_queue("kept", durable=True, arguments={"x-queue-type": "quorum"})
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, "kept", timeout=10)


async def _take(url: str) -> bytes:
    async with await aio_pika.connect(url) as connection:
        queue = await (await connection.channel()).declare_queue("kept", passive=True)
        message = await queue.get(timeout=10, fail=False)
        assert message is not None, "the queue is empty"
        return message.body


def _running(node: PrivateBroker) -> BrokerInfo:
    info = node.status()
    assert info is not None
    return info


def _gone(pids: list[int], name: str) -> bool:
    return not any(is_node(pid, name) for pid in pids)


async def test_a_killed_node_starts_again_with_its_messages_and_a_stopped_one_leaves_no_process(
    own_broker: StartBroker,
) -> None:
    node = own_broker(plugins=())
    before = _running(node)
    await _put(before.amqp_url, b"confirmed")
    assert wait_until(lambda: on_disk(before, "kept"))
    node.kill()
    assert node.status() is None

    after = node.start()
    assert (after.pid != before.pid, after.ports, after.password) == (True, before.ports, before.password)
    assert await _take(after.amqp_url) == b"confirmed"

    pids = list(processes_of(after.node))
    assert after.pid in pids
    node.stop()
    assert wait_until(lambda: _gone(pids, after.node))
    assert node.status() is None


def _listening_on(port: int) -> set[str]:
    """The local addresses that listen on *port*, as the kernel spells them."""
    lines = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()]
    local = [line[1].split(":") for line in lines if line[3] == _LISTENING]
    return {address for address, number in local if int(number, 16) == port}


def _names_at_epmd() -> str:
    """What the epmd that all nodes of a machine share by default, if there is one, answers when asked for its nodes."""
    try:
        with socket.create_connection(("127.0.0.1", 4369), timeout=5) as epmd:
            epmd.sendall(b"\x00\x01n")
            return b"".join(iter(lambda: epmd.recv(4096), b"")).decode(errors="replace")
    except ConnectionRefusedError:
        return ""


def test_every_port_is_open_to_this_machine_only_and_no_other_node_is_told(broker: BrokerInfo) -> None:
    ports = broker.ports
    for name, port in asdict(ports).items():
        addresses = _listening_on(port)
        assert addresses, f"nothing listens on {name}"
        assert addresses <= _LOOPBACK, name
    assert broker.node.partition("@")[0] not in _names_at_epmd()


def test_two_processes_that_start_one_node_share_it(broker: BrokerInfo) -> None:
    assert PrivateBroker(broker.folder).status() == broker


def test_a_node_that_cannot_start_says_where_and_why(tmp_path: Path) -> None:
    node = PrivateBroker(tmp_path, extra_conf="no_such_setting = 1\n")
    with pytest.raises(BrokerError, match="ended with exit code") as refused:
        node.start()
    assert str(tmp_path / "log") in str(refused.value)
    assert "no_such_setting" in "".join(refused.value.__notes__)
    assert node.status() is None


@contextmanager
def _background(*words: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=20)


def test_a_new_node_that_finds_somebody_on_its_port_takes_others(tmp_path: Path) -> None:
    ports = NodeFolder(tmp_path).prepare(None).ports
    with socket.create_server(("127.0.0.1", ports.management)), PrivateBroker(tmp_path) as info:
        assert info.ports.management != ports.management
        assert greet(info.ports.amqp, 20.0) == info.version


def test_a_node_ends_with_the_process_that_started_it_even_by_sigkill(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from penstock.testing.broker_node import PrivateBroker;"
        "print(PrivateBroker(pathlib.Path(sys.argv[1]), plugins=()).start().pid, flush=True); sys.stdin.read()"
    )
    with _background("-c", program, str(tmp_path)) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().strip().isdigit()
        node = PrivateBroker(tmp_path)
        running = _running(node)
        owner.kill()
        try:
            assert wait_until(lambda: not is_node(running.pid, running.node), within=20)
        finally:
            node.kill()


def _command(verb: str, folder: Path, *options: str) -> tuple[int, str, str]:
    done = penstock("broker", verb, "--dir", str(folder), *options)
    return done.code, done.out, done.err


def test_a_node_in_the_foreground_is_found_and_stopped_from_elsewhere(tmp_path: Path) -> None:
    with _background("-m", "penstock", "broker", "run", "--dir", str(tmp_path), "--json") as foreground:
        assert foreground.stdout is not None
        said = json.loads(foreground.stdout.readline())
        assert json.loads(_command("status", tmp_path, "--json")[1]) == said

        code, _, error = _command("run", tmp_path)
        assert (code, error.count("\n")) == (3, 1)
        assert "runs already" in error

        assert _command("stop", tmp_path)[0] == 0
        assert foreground.wait(timeout=20) == 0
    assert wait_until(lambda: not processes_of(said["node"]))


def test_a_detached_node_outlives_its_command_and_its_password_is_never_shown(tmp_path: Path) -> None:
    node = PrivateBroker(tmp_path)
    try:
        code, out, error = _command("run", tmp_path, "--detach")
        assert (code, error) == (0, "")
        running = _running(node)
        assert running.management_url in out
        assert str(tmp_path / "password") in out
        assert running.password not in out + _command("status", tmp_path, "--json")[1]
        assert _command("run", tmp_path, "--detach")[1] == out
        os.kill(running.pid, signal.SIGKILL)
        assert wait_until(lambda: _command("status", tmp_path)[0] == 3)
    finally:
        node.kill()


def test_a_shell_that_reads_the_env_file_finds_the_node_and_its_management(broker: BrokerInfo) -> None:
    command = f'. "{broker.env_file}" && printf "%s %s" "$(cat "$RABBITMQ_URL_FILE")" "$RABBITMQ_MANAGEMENT_URL"'
    read = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=10, check=True)
    assert read.stdout == f"{broker.amqp_url} {broker.management_url}"


def test_a_plugin_that_is_enabled_while_the_node_runs_is_found(own_broker: StartBroker) -> None:
    node = own_broker(plugins=())
    assert "started 1 plugins" in node.ctl("enable", "rabbitmq_event_exchange", program="rabbitmq-plugins")
    assert "amq.rabbitmq.event" in node.ctl("list_exchanges", "name")
