"""The command line on a real broker: what it prints when all is well, and one line and an exit code when it is not."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock.testing.free_ports import free_ports
from tests.support.brokers import Vhost
from tests.support.commands import Finished, penstock, penstock_fed, penstock_in
from tests.support.waiting import wait_until
from tests.support.working import depth, empty, foreign, take

SHOP = """
from penstock import Handlers, JobKind, Worker

handlers = Handlers()

@handlers.on(JobKind("email.send", dict))
async def send(job):
    pass

def build():
    return Worker(handlers, queue="email")

def elsewhere():
    return Worker(handlers, queue="nowhere")

def broken():
    return {}["SMTP_HOST"]
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with a worker in its module ``shop``."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def words_of(finished: Finished) -> str:
    """The last line of what went wrong; all of it is lines of ours or of the log, and no traceback."""
    *log, last = finished.err.splitlines()
    assert all(line.startswith("{") for line in log), finished.err
    assert "Traceback" not in finished.err
    assert last.startswith("penstock: "), finished.err
    return last


async def test_publish_prints_the_id_and_the_job_is_there_as_given(url: str) -> None:
    await empty(url, "jobs.email")
    done = penstock("publish", "email.send", '{"to": "ada@example.org"}', "--id", "order-7", RABBITMQ_URL=url)
    assert (done.code, done.out, done.err) == (0, "order-7\n", "")
    async with foreign(url) as channel:
        message = await take(channel, "jobs.email")
    assert (message.message_id, message.routing_key, message.body) == (
        "order-7",
        "email.send",
        b'{"to": "ada@example.org"}',
    )


async def test_a_body_comes_from_standard_input_or_a_file_unchanged(url: str, tmp_path: Path) -> None:
    await empty(url, "jobs.email")
    body = b'{ "n": 1.0 }\n\xff'
    (tmp_path / "body").write_bytes(body)
    piped = penstock_fed(body, "publish", "email.send", "-", "--json", RABBITMQ_URL=url)
    filed = penstock("publish", "email.send", f"@{tmp_path / 'body'}", "--json", RABBITMQ_URL=url)
    ids = [orjson.loads(done.out)["id"] for done in (piped, filed)]
    async with foreign(url) as channel:
        found = [await take(channel, "jobs.email") for _ in ids]
    assert [(message.message_id, message.body) for message in found] == [(job_id, body) for job_id in ids]


async def test_a_delayed_job_waits_in_the_cascade(url: str) -> None:
    await empty(url, "jobs.email", "jobs.delay.05-32s")
    assert penstock("publish", "email.send", "--delay", "32s", RABBITMQ_URL=url).code == 0
    assert await depth(url, "jobs.email") == 0
    assert await depth(url, "jobs.delay.05-32s") == 1
    await empty(url, "jobs.delay.05-32s")


def test_what_nobody_takes_is_code_7(url: str) -> None:
    done = penstock("publish", "emial.send", RABBITMQ_URL=url)
    assert (done.code, done.out) == (7, "")
    assert "no queue is bound for 'emial.send'" in words_of(done)


def test_too_large_a_body_is_code_7_and_never_sent(url: str) -> None:
    done = penstock_fed(b"x" * 1_100_000, "publish", "email.send", "-", RABBITMQ_URL=url)
    assert done.code == 7
    assert "over the limit of 1048576" in words_of(done)


def test_a_dead_broker_is_code_3_and_every_try_a_line() -> None:
    [port] = free_ports(1)
    here = f"amqp://ada:hunter2@127.0.0.1:{port}"
    done = penstock("publish", "email.send", RABBITMQ_URL=here, PENSTOCK_CONNECT_TIMEOUT="5")
    assert done.code == 3
    assert f"127.0.0.1:{port}" in words_of(done)
    tries = [orjson.loads(line) for line in done.err.splitlines()[:-1]]
    assert tries
    assert all(line["event"] == "cannot connect" and "again_in" in line for line in tries)
    assert "hunter2" not in done.err


PUBLISH, WORK, LOOK = ("publish", "email.send"), ("worker", "shop:build"), ("dead", "list", "--queue=email")


@pytest.mark.parametrize(
    ("command", "old", "new", "code", "words"),
    [
        (PUBLISH, r":[^:@]*@", ":wrong@", 4, "refused"),
        (WORK, r":[^:@]*@", ":wrong@", 4, "refused"),
        (LOOK, r":[^:@]*@", ":wrong@", 4, "refused"),
        (PUBLISH, r"/[^/]*$", "/nowhere", 4, "nowhere"),
        (WORK, r"/[^/]*$", "/nowhere", 4, "nowhere"),
        (PUBLISH, r"^amqp", "ampq", 5, "ampq is not a scheme we know"),
        (WORK, r":\d+/", ":high/", 5, "the port is not a number"),
    ],
)
def test_a_wrong_url_fails_at_once_and_shows_no_password(
    vhost: Vhost, shop: Path, command: tuple[str, ...], old: str, new: str, code: int, words: str
) -> None:
    done = penstock_in(shop, *command, RABBITMQ_URL=re.sub(old, new, vhost.url))
    assert done.code == code, done.err
    assert words in words_of(done)
    assert vhost.broker.password not in done.err


def test_no_url_at_all_says_which_variable_to_set() -> None:
    done = penstock("publish", "email.send")
    assert (done.code, done.err) == (
        5,
        "penstock: no broker URL: set RABBITMQ_URL, for example amqp://user:password@host:5672/vhost\n",
    )


def test_a_broker_without_the_topology_is_code_5(vhost_url: str, shop: Path) -> None:
    published = penstock("publish", "email.send", RABBITMQ_URL=vhost_url)
    worked = penstock_in(shop, "worker", "shop:build", RABBITMQ_URL=vhost_url)
    looked = penstock("dead", "list", "--queue", "email", RABBITMQ_URL=vhost_url)
    assert (published.code, worked.code, looked.code) == (5, 5, 5)
    assert "'jobs'" in words_of(published)
    assert "'jobs.email' is missing" in words_of(worked)
    assert "'jobs.email.dead' is missing" in words_of(looked)


async def test_a_queue_declared_otherwise_is_code_5_and_names_what_differs(vhost_url: str, shop: Path) -> None:
    async with foreign(vhost_url) as channel:
        arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": 7}
        await channel.declare_queue("jobs.email", durable=True, arguments=arguments)
    (shop / "rabbitmq").mkdir()
    (shop / "rabbitmq/topology.yaml").write_text("queues: {email: [email.*]}")
    done = penstock_in(shop, "worker", "shop:build", "--apply", RABBITMQ_URL=vhost_url)
    assert done.code == 5
    assert "jobs.email" in words_of(done)
    assert "x-delivery-limit" in words_of(done) or "x-dead-letter-exchange" in words_of(done)


def test_broken_yaml_is_code_5_with_file_and_line(url: str, shop: Path) -> None:
    (shop / "rabbitmq").mkdir()
    (shop / "rabbitmq/topology.yaml").write_text("queues:\n  email: [email.*]\n  email: [sms.*]\n")
    done = penstock_in(shop, "worker", "shop:build", RABBITMQ_URL=url)
    assert done.code == 5
    assert "rabbitmq/topology.yaml:3" in words_of(done)


def test_a_queue_the_topology_does_not_know_is_code_5(url: str, shop: Path) -> None:
    (shop / "rabbitmq").mkdir()
    (shop / "rabbitmq/topology.yaml").write_text("queues:\n  email: [email.*]\n")
    done = penstock_in(shop, "worker", "shop:elsewhere", RABBITMQ_URL=url)
    assert done.code == 5
    assert "has no queue 'nowhere'" in words_of(done)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("worker", "shop_nope:build"), "no module 'shop_nope'"),
        (("worker", "shop:bild"), "has no 'bild'"),
        (("worker", "shop:build", "--slots", "none"), "Invalid value for '--slots'"),
        (("publish", "email.send", '{"to": 1}', "--check"), "the arguments do not fit email.send: "),
        (("publish", "email.sent", "{}", "--check"), "no kind 'email.sent' in penstock_jobs:KINDS"),
        (("publish", "email.send", "{", "--check"), "the body is not JSON"),
        (("publish", "email.send", "@missing.json"), "cannot read missing.json"),
        (("publish", "email.send", "--delay", "-5"), "is not a duration"),
        (("publish", "email.send", "--delay", "200d"), "beyond the longest possible"),
        (("publish", "email.send", "--at", "2030-01-01T00:00"), "has no zone"),
        (("publish", "email.send", "--at", "2030-01-01T00:00Z", "--delay", "5"), "delay or at, not both"),
        (("pubish", "email.send"), "No such command 'pubish'. Did you mean 'publish'? (penstock --help)"),
        (("dead", "lst"), "No such command 'lst'. Did you mean 'list'? (penstock dead --help)"),
        (("publish",), "Missing argument 'KIND'"),
        (("dead", "discard"), "name a filter, or say --all"),
        (("dead", "show", "nope", "--queue", "email"), "no dead letter with the id 'nope'"),
    ],
)
def test_wrong_usage_is_code_2_in_one_line(url: str, shop: Path, command: tuple[str, ...], words: str) -> None:
    done = penstock_in(shop, *command, RABBITMQ_URL=url)
    assert done.code == 2, done.err
    assert words in words_of(done)


def test_what_nobody_foresaw_is_one_line_and_a_traceback_on_request(url: str, shop: Path) -> None:
    done = penstock_in(shop, "worker", "shop:broken", RABBITMQ_URL=url)
    assert done.code == 1
    assert "unexpected KeyError: 'SMTP_HOST' (penstock --traceback worker … shows where)" in words_of(done)
    for told in (
        penstock_in(shop, "worker", "shop:broken", "--traceback", RABBITMQ_URL=url),
        penstock_in(shop, "worker", "shop:broken", RABBITMQ_URL=url, PENSTOCK_DEBUG="1"),
    ):
        assert told.code == 1
        assert 'return {}["SMTP_HOST"]' in told.err


def test_development_conveniences_are_refused_in_production(url: str, shop: Path) -> None:
    for flag in ("--apply", "--reload"):
        done = penstock_in(shop, "worker", "shop:build", flag, RABBITMQ_URL=url, PENSTOCK_ENV="production")
        assert done.code == 2
        assert "for development" in words_of(done)


def test_help_and_version_need_no_broker() -> None:
    assert re.fullmatch(r"penstock \d+\.\d+\.\d+\n", penstock("--version").out)
    for command in ([], ["publish"], ["worker"], ["dead"], ["topology"], ["broker"]):
        done = penstock(*command, "--help")
        assert (done.code, done.err) == (0, ""), command
        assert re.search(r"Examples:\n +penstock ", done.out), command


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m penstock --help | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, timeout=20, check=False)
    assert done.stderr == b""


@contextmanager
def worker(shop: Path, url: str, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A worker process and its log; it is gone after the block."""
    log = shop / "log"
    command = [sys.executable, "-m", "penstock", "worker", "shop:build", *flags]
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=shop, env={"RABBITMQ_URL": url, "PATH": "/usr/bin:/bin"}, stderr=file)
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def test_a_worker_stopped_before_it_ever_connected_stops_cleanly(shop: Path) -> None:
    [port] = free_ports(1)
    with worker(shop, f"amqp://127.0.0.1:{port}") as (process, log):
        wait_until(lambda: "cannot connect" in log.read_text(), within=20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert "stopping before the first job" in log.read_text()


def test_apply_declares_the_topology_and_the_worker_consumes(vhost_url: str, shop: Path) -> None:
    (shop / "rabbitmq").mkdir()
    (shop / "rabbitmq/topology.yaml").write_text("queues: {email: [email.*]}")
    with worker(shop, vhost_url, "--apply", "--slots", "3") as (process, log):
        wait_until(lambda: '"event":"ready"' in log.read_text(), within=40)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    told = {line["event"]: line for line in map(orjson.loads, log.read_text().splitlines())}
    assert list(told)[:2] == ["topology declared", "starting"]
    assert (told["starting"]["slots"], told["stopped"]["clean"]) == (3, True)
