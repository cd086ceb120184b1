"""A broker that boots from the exported definitions is complete, and holds every user to its own work."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock.brokers.aio_pika_driver import open_admin
from penstock.brokers.pika_driver import PikaBroker
from penstock.delay import kind_key
from penstock.errors import AccessRefused, BrokerError
from penstock.message import Message
from penstock.ports import Link
from penstock.testing.broker_node import BrokerInfo, PrivateBroker
from penstock.topology.definitions import definitions, dumps
from penstock.topology.model import Queue, Topology
from penstock.topology.reading import read_spec
from tests.support.brokers import installation
from tests.support.commands import Finished, penstock
from tests.support.inbox import PATIENCE
from tests.support.permissions import acts as everything
from tests.support.permissions import matrix, may, tried

OURS = Path(__file__).parents[2] / "rabbitmq"
FILE = OURS / "topology.yaml"
SPEC = read_spec(FILE)


@pytest.fixture(scope="module")
def booted(broker_version: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerInfo]:
    """A blank broker that booted from our own files, definitions for its version; it has one administrator besides."""
    folder = tmp_path_factory.mktemp("booted")
    (folder / "definitions.json").write_text(dumps(definitions(SPEC, broker_version)))
    # The node's working directory is its folder, also where a tree has another name for it.
    configuration = (OURS / "rabbitmq.conf").read_text().replace("/etc/rabbitmq/definitions.json", "definitions.json")
    node = PrivateBroker(
        folder,
        installation(broker_version),
        extra_conf=configuration,
        advanced=(OURS / "advanced.config").read_text(),
        plugins=re.findall(r"\w+", (OURS / "enabled_plugins").read_text()),
    )
    try:
        info = node.start()
        node.ctl("add_user", info.user, info.password)
        node.ctl("set_user_tags", info.user, "administrator")
        node.ctl("set_permissions", info.user, ".*", ".*", ".*")
        yield info
    finally:
        node.kill()


def topology(info: BrokerInfo, *words: str) -> Finished:
    where = {"RABBITMQ_URL": info.amqp_url, "RABBITMQ_MANAGEMENT_URL": info.management_url}
    return penstock("topology", *words, "--file", str(FILE), **where)


@pytest.fixture(scope="module")
def users(booted: BrokerInfo, tmp_path_factory: pytest.TempPathFactory) -> BrokerInfo:
    """The booted broker after every user but the monitor was given a password: its own name backwards."""
    secrets = tmp_path_factory.mktemp("secrets")
    for user in SPEC.users:
        if user.name != "monitor":
            (secrets / user.name).write_text(user.name[::-1] + "\n")
    done = topology(booted, "users", "--passwords-from", str(secrets))
    assert done.code == 0, done.err
    assert "monitor: left alone" in done.out
    assert "rotarepo" not in done.out + done.err
    return booted


def url_of(info: BrokerInfo, user: str) -> str:
    return f"amqp://{user}:{user[::-1]}@{info.host}:{info.ports.amqp}"


@asynccontextmanager
async def logged_in(info: BrokerInfo, user: str) -> AsyncIterator[Link]:
    link = await PikaBroker(url_of(info, user), connect_timeout=timedelta(seconds=30)).connect("test")
    try:
        yield link
    finally:
        await link.close()


async def publish(link: Link, exchange: str, key: str) -> None:
    outlet = await link.outlet()
    await outlet.publish(Message(b"{}"), exchange, key, asyncio.get_running_loop().time() + PATIENCE)


def test_a_broker_booted_from_the_export_is_as_planned(booted: BrokerInfo) -> None:
    plan = topology(booted, "plan")
    assert (plan.code, plan.err) == (0, ""), plan


def test_for_the_current_series_the_export_is_the_committed_file(booted: BrokerInfo) -> None:
    exported = (booted.folder / "definitions.json").read_text()
    committed = (OURS / "definitions.json").read_text()
    assert (exported == committed) is not booted.version.startswith("3.")


async def test_nobody_logs_in_without_a_password(users: BrokerInfo) -> None:
    for password in ("", "monitor", "rotinom"):
        with pytest.raises(AccessRefused):
            await open_admin(f"amqp://monitor:{password}@{users.host}:{users.ports.amqp}")


async def test_every_user_may_do_what_its_work_needs_and_nothing_else(users: BrokerInfo) -> None:
    acts = list(everything(SPEC))
    found = {user.name: await tried(url_of(users, user.name), acts) for user in SPEC.users if user.name != "monitor"}
    print(matrix(acts, found))  # noqa: T201 - to be looked at: pytest -rP
    meant = {user.name: [may(SPEC, user, act) for act in acts] for user in SPEC.users if user.name in found}
    wrong = [
        f"{user} {'may' if is_so else 'may not'} {act}"
        for user, answers in found.items()
        for act, is_so, should in zip(acts, answers, meant[user], strict=True)
        if is_so is not should
    ]
    assert wrong == []
    assert sum(map(sum, found.values())) > len(SPEC.users), "and something is allowed at all"


async def test_a_key_that_only_looks_like_a_delay_is_refused(users: BrokerInfo) -> None:
    async with logged_in(users, "orders") as link:
        with pytest.raises(AccessRefused):
            await publish(link, "jobs.delay", kind_key(2, "email.send").replace("1.0", "1.x"))


async def test_no_service_gets_round_the_exchanges_by_the_default_one(users: BrokerInfo) -> None:
    async with logged_in(users, "mailer") as link:
        with pytest.raises(BrokerError, match=r"access to exchange 'amq\.default' in vhost '/' refused"):
            await publish(link, "", "jobs.reports")


async def test_no_service_declares_anything_but_the_deploy_tool_does_all_of_it(users: BrokerInfo) -> None:
    quorum = {"x-queue-type": "quorum"}
    for name in ("orders", "mailer", "scheduler", "operator"):
        assert await declared(url_of(users, name), Topology(queues=(Queue("jobs.mine", quorum),))) is AccessRefused
    deploy = {"RABBITMQ_URL": url_of(users, "topology"), "RABBITMQ_MANAGEMENT_URL": users.management_url}
    done = await asyncio.to_thread(penstock, "topology", "apply", "--file", str(FILE), **deploy)
    assert (done.code, done.err) == (0, ""), done


async def declared(url: str, topology: Topology) -> Any:
    """The type of the broker's refusal, or None."""
    admin = await open_admin(url)
    try:
        await admin.declare(topology)
    except BrokerError as error:
        return type(error)
    finally:
        await admin.close()
    return None
