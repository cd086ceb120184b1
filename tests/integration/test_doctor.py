"""The doctor on a real broker: each check finds what was broken for it, and nothing where all is well."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError

import pytest

from penstock.applying import apply
from penstock.claims import StoreUrl
from penstock.doctor.examination import examine
from penstock.doctor.findings import Finding, State, exit_code
from penstock.management import Management
from penstock.settings import BROKER_VARIABLES, Settings
from penstock.stores.sqlite import SqliteStore
from penstock.testing.broker_node import BrokerInfo, PrivateBroker
from penstock.testing.free_ports import free_ports
from penstock.topology.access import access
from penstock.topology.passwords import password_hash
from penstock.topology.reading import read_spec
from penstock.urls import BrokerUrl
from tests.support.brokers import Vhost, installation, manage, quoted
from tests.support.commands import Finished, penstock
from tests.support.waiting import eventually, wait_until

APPS = "tests.support.doctor_apps"

#: For a machine under load, where nothing is judged by how fast it is.
PATIENCE = timedelta(seconds=20)


@dataclass(frozen=True)
class Place:
    """A virtual host as its topology file says, with the users of it, and a store."""

    vhost: Vhost
    file: Path
    user: str

    @property
    def environment(self) -> dict[str, str]:
        """What the doctor is told of it."""
        return {
            "RABBITMQ_URL": self.vhost.url,
            "RABBITMQ_MANAGEMENT_URL": self.vhost.broker.management_url,
            "PENSTOCK_TOPOLOGY": str(self.file),
            "PENSTOCK_STORE_URL": f"sqlite:///{self.file.parent}/store.db",
        }

    def api(self, method: str, path: str, body: object = None) -> object:
        """Change something behind our back; VHOST stands for the virtual host."""
        return manage(self.vhost.broker, method, path.replace("VHOST", quoted(self.vhost.name)), body)


def await_word_of_nodes(broker: BrokerInfo) -> None:
    """A broker that was just started says nothing of its nodes for 5 s."""

    def told() -> bool:
        try:
            return "enabled_plugins" in manage(broker, "GET", "/api/nodes")[0]
        except HTTPError:
            return False

    wait_until(told, within=20)


@pytest.fixture(scope="module")
def place(broker: BrokerInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One for all tests here, for declaring takes seconds: whoever breaks something puts it back."""
    name, user = f"doctor-{uuid.uuid4().hex[:12]}", f"mailer-{uuid.uuid4().hex[:12]}"
    await_word_of_nodes(broker)
    manage(broker, "PUT", f"/api/vhosts/{name}")
    vhost = Vhost(name, broker)
    file = tmp_path_factory.mktemp("doctor") / "topology.yaml"
    file.write_text(f"vhost: {name}\nqueues: {{email: [email.*]}}\nusers: {{{user}: {{works: [email]}}}}\n")
    spec = read_spec(file)
    asyncio.run(apply(vhost.url, spec))
    with Management(BrokerUrl.parse(vhost.url), broker.management_url) as management:
        management.put_user(access(spec, spec.users[0]), password_hash("a password"))
    asyncio.run(SqliteStore(StoreUrl.parse(f"sqlite:///{file.parent}/store.db")).migrate())
    yield Place(vhost, file, user)
    manage(broker, "DELETE", f"/api/users/{user}")
    manage(broker, "DELETE", f"/api/vhosts/{name}")


Examine = Callable[..., Awaitable[dict[str, Finding]]]


@pytest.fixture
def examined(place: Place, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Examine *place* and the workers named, with other settings where they are given; findings by check."""

    async def run(*targets: str, **environment: str | None) -> dict[str, Finding]:
        with monkeypatch.context() as patch:
            for name in (*BROKER_VARIABLES, *environment):
                patch.delenv(name, raising=False)
            for name, value in (place.environment | environment).items():
                if value is not None:
                    patch.setenv(name, value)
            named = [f"{APPS}:{target}" for target in targets]
            findings = await examine(Settings.load(), named, patience=PATIENCE)
        return {finding.check: finding for finding in findings}

    return run


def wrong(found: dict[str, Finding]) -> dict[str, Finding]:
    """What is wrong among *found*."""
    return {name: finding for name, finding in found.items() if finding.state is State.WRONG}


def the_one(found: dict[str, Finding], check: str, *words: str) -> Finding:
    """Only *check* is wrong, with *words* in what it says, and it says what to do."""
    assert list(wrong(found)) == [check], found
    said = f"{found[check].words}; {found[check].cure}"
    assert [word for word in words if word not in said] == []
    return found[check]


async def test_no_url_at_all(examined: Examine) -> None:
    found = await examined(RABBITMQ_URL=None)
    the_one(found, "url", "set RABBITMQ_URL")
    assert exit_code(list(found.values())) == 5


def test_all_is_well_in_one_line_each(place: Place) -> None:
    [port] = free_ports(1)
    done = doctor(place, f"{APPS}:build", PENSTOCK_METRICS_PORT=str(port))
    assert (done.code, done.err) == (0, "")
    *lines, last = done.out.splitlines()
    assert [line for line in lines if not line.startswith("OK ")] == []
    assert last == "nothing is wrong"


def test_json_has_every_check_in_one_order(place: Place) -> None:
    done = doctor(place, f"{APPS}:build", "--json")
    found = json.loads(done.out)
    assert [finding["check"] for finding in found] == [
        *("url", "broker", "login", "vhost", "management", "version", "permissions", "topology", "policies"),
        *("plugins", "alarms", "clock", f"worker {APPS}:build", "store", "metrics port"),
    ]
    assert {finding["check"] for finding in found if finding["state"] != "ok"} == {"metrics port"}
    assert done.code == 0
    assert place.vhost.broker.password not in done.out


def doctor(place: Place, *words: str, **environment: str) -> Finished:
    """Run the command as its users do."""
    return penstock("doctor", *words, "--timeout", "20", **(place.environment | environment))


def test_what_is_wrong_is_a_line_with_its_cure_and_exit_code_6(place: Place) -> None:
    done = doctor(place, f"{APPS}:broken")
    assert (done.code, done.err) == (6, "")
    [line] = [line for line in done.out.splitlines() if line.startswith("WRONG")]
    assert "cannot be built: OSError: no such mail server; mend its factory" in line


@pytest.mark.parametrize(
    ("environment", "code", "words"),
    [
        ({"RABBITMQ_URL": "ampq://127.0.0.1"}, 5, "WRONG settings .*ampq is not a scheme"),
        ({"PENSTOCK_SLOTS": "many"}, 5, "WRONG settings +PENSTOCK_SLOTS"),
    ],
)
def test_settings_that_cannot_be_read_are_a_line_too(
    place: Place, environment: dict[str, str], code: int, words: str
) -> None:
    done = doctor(place, **environment)
    assert (done.code, done.err) == (code, "")
    assert re.search(words, done.out)


async def test_a_broker_that_is_away(examined: Examine) -> None:
    found = await examined(RABBITMQ_URL="amqp://127.0.0.1:1", RABBITMQ_MANAGEMENT_URL="http://127.0.0.1:1")
    assert list(wrong(found)) == ["broker", "management"]
    assert "start it" in str(found["broker"].cure)
    assert exit_code(list(found.values())) == 3
    assert found["topology"].state is State.UNSEEN


async def test_a_login_and_a_virtual_host_that_are_refused_are_told_apart(examined: Examine, place: Place) -> None:
    url = place.vhost.url
    found = await examined(RABBITMQ_URL=url.replace(place.vhost.broker.password, "wrong"))
    assert list(wrong(found)) == ["login", "management"]
    assert exit_code(list(found.values())) == 4
    found = await examined(RABBITMQ_URL=place.vhost.broker.url_for("nowhere"))
    assert found["login"].state is State.OK
    assert "nowhere" in found["vhost"].words
    assert "add_vhost" in str(found["vhost"].cure)
    assert exit_code(list(found.values())) == 4


async def test_management_that_refuses_or_is_away_while_amqp_is_fine(examined: Examine, place: Place) -> None:
    base = place.vhost.broker.management_url
    found = await examined(RABBITMQ_MANAGEMENT_URL=base.replace("//", "//nobody:wrong@"))
    assert the_one(found, "management", "user 'nobody' is refused", "RABBITMQ_MANAGEMENT_URL").code == 4
    assert found["vhost"].state is State.OK
    found = await examined(RABBITMQ_MANAGEMENT_URL="http://127.0.0.1:1")
    assert the_one(found, "management", "no answer", "rabbitmq_management").code == 3
    assert found["vhost"].state is State.OK


async def test_a_version_that_production_should_not_run(examined: Examine, broker_version: str) -> None:
    found = await examined(PENSTOCK_ENV="production")
    if broker_version == "4.3":
        assert wrong(found) == {}
    else:
        the_one(found, "version", f"RabbitMQ {broker_version}", "run 3.13.7")


async def test_permissions_that_are_not_what_the_topology_says(examined: Examine, place: Place) -> None:
    path = f"/api/permissions/VHOST/{place.user}"
    kept = place.api("GET", path)
    assert isinstance(kept, dict)
    place.api("PUT", path, {**kept, "write": ".*"})
    try:
        found = await examined()
    finally:
        place.api("PUT", path, kept)
    the_one(found, "permissions", f"user {place.user}: write is .*, wanted is ^(jobs", "penstock topology users")


async def test_a_user_that_is_missing_in_production(examined: Examine, place: Place, tmp_path: Path) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(place.file.read_text().replace("users: {", "users: {nobody-yet: {works: [email]}, "))
    found = await examined(PENSTOCK_TOPOLOGY=str(file), PENSTOCK_ENV="production")
    assert "users are missing: nobody-yet" in wrong(found)["permissions"].words
    assert wrong(await examined(PENSTOCK_TOPOLOGY=str(file))) == {}


async def test_drift_of_the_topology(examined: Examine, place: Place) -> None:
    path = f"/api/bindings/VHOST/e/jobs/q/jobs.email/{quoted('email.*')}"
    place.api("DELETE", path)
    try:
        found = await examined()
    finally:
        place.api("POST", "/api/bindings/VHOST/e/jobs/q/jobs.email", {"routing_key": "email.*"})
    the_one(found, "topology", "binding jobs → queue jobs.email by email.* is missing", "penstock topology apply")


async def test_a_topology_file_that_cannot_be_read(examined: Examine, tmp_path: Path) -> None:
    found = await examined(PENSTOCK_TOPOLOGY=str(tmp_path / "none.yaml"))
    the_one(found, "topology file", "none.yaml")


async def test_a_policy_that_weakens_dead_lettering(examined: Examine, place: Place) -> None:
    path = "/api/policies/VHOST/theirs"
    definition = {"pattern": "^jobs.email$", "definition": {"overflow": "drop-head"}, "apply-to": "queues"}
    place.api("PUT", path, definition)
    try:
        found = await examined()
    finally:
        place.api("DELETE", path)
    the_one(found, "policies", "queue jobs.email: policy theirs sets overflow to drop-head", "out of that policy")


async def test_a_worker_whose_deliveries_the_broker_would_take_back(examined: Examine) -> None:
    found = await examined("slow", "trusting")
    the_one(found, f"worker {APPS}:slow", "email.send may run 0:40:00", "consumer timeout of 0:30:00")
    assert found[f"worker {APPS}:trusting"].state is State.UNSEEN


async def test_a_consumer_timeout_of_the_queue_that_is_too_short(
    examined: Examine, place: Place, broker_version: str, tmp_path: Path
) -> None:
    if broker_version == "3.10":  # knows no such policy
        assert wrong(await examined("build")) == {}
        return
    path = "/api/policies/VHOST/jobs.email"
    definition = {"pattern": r"^jobs\.email$", "definition": {"consumer-timeout": 600_000}, "apply-to": "quorum_queues"}
    place.api("PUT", path, {**definition, "priority": 10})
    file = tmp_path / "topology.yaml"
    file.write_text(place.file.read_text().replace("[email.*]", "{binds: [email.*], consumer_timeout: 10m}"))
    try:
        found = await examined("build", PENSTOCK_TOPOLOGY=str(file))
    finally:
        place.api("DELETE", path)
    the_one(found, f"worker {APPS}:build", "the consumer timeout of jobs.email is 0:10:00", "shorten its timeout")


async def test_workers_that_cannot_be_built_or_have_no_queue(examined: Examine, tmp_path: Path) -> None:
    found = await examined("broken", "missing")
    assert "OSError: no such mail server" in wrong(found)[f"worker {APPS}:broken"].words
    assert "has no 'missing'" in wrong(found)[f"worker {APPS}:missing"].words
    file = tmp_path / "topology.yaml"
    file.write_text("queues: {letters: [email.*]}\n")
    found = await examined("build", PENSTOCK_TOPOLOGY=str(file))
    assert "has no queue 'email'" in wrong(found)[f"worker {APPS}:build"].words


async def test_a_store_that_is_away_unmade_or_forgets_too_soon(examined: Examine, tmp_path: Path) -> None:
    found = await examined(PENSTOCK_STORE_URL="postgresql://nobody:secret@127.0.0.1:1/none")
    assert the_one(found, "store", "127.0.0.1:1", "PENSTOCK_STORE_URL").code == 3
    assert "secret" not in found["store"].words
    found = await examined(PENSTOCK_STORE_URL=f"sqlite:///{tmp_path}/none.db")
    the_one(found, "store", "penstock store migrate")
    found = await examined(PENSTOCK_STORE_RETENTION="360h")
    the_one(found, "store", "forgets jobs after 15 days", "PENSTOCK_STORE_RETENTION")
    assert (await examined(PENSTOCK_STORE_URL=None))["store"].state is State.UNSEEN


async def test_a_worker_that_needs_a_store_has_it_checked(
    examined: Examine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await examined("forgetful", PENSTOCK_STORE_RETENTION="360h")
    assert list(wrong(found)) == [f"worker {APPS}:forgetful", "store"]
    monkeypatch.chdir(tmp_path)
    found = await examined("forgetful", PENSTOCK_STORE_URL=None)
    the_one(found, "store", "sqlite:///penstock.db does not exist")


async def test_a_metrics_port_that_somebody_else_has(examined: Examine) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        found = await examined(PENSTOCK_METRICS_PORT=str(taken.getsockname()[1]))
    the_one(found, "metrics port", "cannot be had", "choose another PENSTOCK_METRICS_PORT")


async def test_a_metrics_port_that_a_worker_of_ours_serves(examined: Examine) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nalive\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await examined(PENSTOCK_METRICS_PORT=str(port))
    assert "served by a Penstock process already" in found["metrics port"].words


def test_a_clock_that_is_off(place: Place) -> None:
    [library] = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    off = {"LD_PRELOAD": str(library), "FAKETIME": "+61s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    done = doctor(place, "--json", **off)
    assert done.code == 6
    found = {finding["check"]: finding["found"] for finding in json.loads(done.out) if finding["state"] == "wrong"}
    assert list(found) == ["clock"], found
    assert "s ahead of the broker's" in found["clock"]


async def test_a_monitor_sees_what_it_may_and_the_rest_is_no_finding(examined: Examine, place: Place) -> None:
    user = f"looker-{uuid.uuid4().hex[:8]}"
    place.api("PUT", f"/api/users/{user}", {"password": "look", "tags": "management"})
    place.api("PUT", f"/api/permissions/VHOST/{user}", {"configure": "^$", "write": "^$", "read": "^$"})
    base = place.vhost.broker.management_url
    try:
        found = await examined(RABBITMQ_MANAGEMENT_URL=base.replace("//", f"//{user}:look@"))
    finally:
        place.api("DELETE", f"/api/users/{user}")
    assert wrong(found) == {}
    for check in ("permissions", "plugins", "alarms"):
        assert found[check].state is State.UNSEEN
    assert "tag monitoring" in found["alarms"].words


@pytest.fixture(scope="module")
def bare(broker_version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateBroker]:
    """A node that tests may harm, without the plugins that alarms and letters need."""
    node = PrivateBroker(
        tmp_path_factory.mktemp("bare"), installation(broker_version), plugins=("rabbitmq_management",)
    )
    await_word_of_nodes(node.start())
    yield node
    node.kill()


async def at(node: PrivateBroker, examined: Examine) -> dict[str, Finding]:
    """What the doctor finds of *node*, which has no topology."""
    info = node.status()
    assert info is not None
    return await examined(RABBITMQ_URL=info.amqp_url, RABBITMQ_MANAGEMENT_URL=info.management_url)


async def test_plugins_that_are_off(bare: PrivateBroker, examined: Examine) -> None:
    found = await at(bare, examined)
    assert "rabbitmq_prometheus, rabbitmq_shovel" in wrong(found)["plugins"].words
    assert "rabbitmq-plugins enable rabbitmq_prometheus" in str(found["plugins"].cure)


async def test_an_alarm(bare: PrivateBroker, examined: Examine) -> None:
    assert (await at(bare, examined))["alarms"].state is State.OK
    bare.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        found = await eventually(lambda: _alarmed(bare, examined), within=30)
    finally:
        bare.ctl("set_vm_memory_high_watermark", "0.6")
    assert "memory alarm on" in found["alarms"].words
    assert "publishers are blocked" in found["alarms"].words


async def _alarmed(node: PrivateBroker, examined: Examine) -> dict[str, Finding]:
    """What is wrong, once the alarm is among it: the management API is some seconds behind."""
    found = wrong(await at(node, examined))
    return found if "alarms" in found else {}


async def test_a_frozen_broker_does_not_hold_the_doctor_up(bare: PrivateBroker) -> None:
    status = bare.status()
    assert status is not None
    os.kill(status.pid, signal.SIGSTOP)
    try:
        info = {"RABBITMQ_URL": status.amqp_url, "RABBITMQ_MANAGEMENT_URL": status.management_url}
        done = await asyncio.to_thread(penstock, "doctor", **info)
    finally:
        os.kill(status.pid, signal.SIGCONT)
    assert done.code == 3
    found = [line.split()[1] for line in done.out.splitlines() if line.startswith("WRONG")]
    assert found == ["broker", "management"]
