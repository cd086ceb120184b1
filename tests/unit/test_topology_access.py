"""Permissions: each user can do its work and nothing beside it; definitions.json says so, the same way every time."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.delay import kind_key, queue_key
from penstock.errors import ConfigError
from penstock.topology.access import Access, access, kinds_regex
from penstock.topology.definitions import definitions, dumps
from penstock.topology.matching import matches
from penstock.topology.passwords import password_hash, read_passwords
from penstock.topology.policies import policies, version_of
from penstock.topology.reading import parse_spec, read_spec

REPO = Path(__file__).parents[2]
SPEC = parse_spec(
    """
    queues:
      email: [email.*]
      reports: {binds: [report.*, invoice.#], consumer_timeout: 1h}
    users:
      orders: {publishes: [email.*, invoice.#]}
      legacy: {publishes: [report.*], foreign: true}
      mailer: {works: [email]}
      clock: {role: scheduler, publishes: [report.*]}
      deploy: {role: topology}
      eye: {role: monitor}
      hand: {role: operator}
    """
)
MAY = {user.name: access(SPEC, user) for user in SPEC.users}


def may_publish(user: Access, exchange: str, key: str) -> bool:
    """Judge as the broker does: by the exchange's name, then by the key where there is a topic permission."""
    keys = user.topics.get(exchange, "")
    return re.search(user.write, exchange) is not None and re.search(keys, key) is not None


@pytest.mark.parametrize(
    ("user", "exchange", "key"),
    [
        ("orders", "jobs", "email.send"),
        ("orders", "jobs", "invoice"),
        ("orders", "jobs", "invoice.eu.send"),
        ("orders", "jobs.delay", kind_key(5, "email.send")),
        ("legacy", "jobs", "report.daily"),
        ("mailer", "jobs.delay", queue_key(7, "jobs.email")),
        ("mailer", "jobs.dead", "jobs.email"),
        ("clock", "jobs", "report.daily"),
        ("clock", "jobs.scheduler", "state"),
        ("clock", "jobs.scheduler", "claim"),
        ("hand", "jobs.scheduler", "command"),
        ("hand", "jobs.delay", queue_key(0, "jobs.email")),
        ("hand", "jobs", "report.daily"),
        ("hand", "jobs.dead", "jobs.email"),
        ("hand", "jobs.dead", "jobs.unrouted"),
        ("hand", "jobs.dead.audit", "replay"),
    ],
)
def test_a_user_may_publish_what_its_work_needs(user: str, exchange: str, key: str) -> None:
    assert may_publish(MAY[user], exchange, key)


@pytest.mark.parametrize(
    ("user", "exchange", "key"),
    [
        ("orders", "jobs", "report.daily"),
        ("orders", "jobs", "email.send.now"),
        ("orders", "jobs", "x.email.send"),
        ("orders", "jobs.delay", queue_key(5, "jobs.email")),
        ("orders", "jobs.delay", kind_key(5, "report.daily")),
        ("orders", "jobs.delay", kind_key(5, "email.send").replace("1", "x")),
        ("orders", "jobs.dead", "jobs.email"),
        ("legacy", "jobs.delay", kind_key(5, "report.daily")),
        ("mailer", "jobs", "email.send"),
        ("mailer", "jobs.delay", queue_key(7, "jobs.reports")),
        ("mailer", "jobs.delay", queue_key(7, "jobs.email.dead")),
        ("mailer", "jobs.delay", kind_key(7, "email.send")),
        ("mailer", "jobs.dead", "jobs.reports"),
        ("hand", "jobs.delay", queue_key(1, "jobs.email")),
        ("hand", "jobs.delay", kind_key(0, "report.daily")),
        ("hand", "jobs", "other.kind"),
        ("mailer", "jobs.dead.audit", "replay"),
        ("hand", "jobs.scheduler", "state"),
        ("clock", "jobs.scheduler", "command"),
        ("orders", "jobs.scheduler", "command"),
        ("eye", "jobs", "email.send"),
    ],
)
def test_a_user_may_publish_nothing_else(user: str, exchange: str, key: str) -> None:
    assert not may_publish(MAY[user], exchange, key)


@pytest.mark.parametrize(
    ("user", "reads"),
    [
        ("orders", set()),
        ("mailer", {"jobs.email"}),
        ("clock", {"jobs.scheduler"}),
        ("eye", set()),
        ("hand", {"jobs.email.dead", "jobs.reports.dead", "jobs.unrouted", "jobs.scheduler.view", "jobs.dead.audit"}),
    ],
)
def test_a_user_may_consume_its_own_queues_only(user: str, reads: set[str]) -> None:
    names = ["jobs.email", "jobs.reports", "jobs.email.dead", "jobs.reports.dead", "jobs.unrouted"]
    names += ["jobs.scheduler", "jobs.scheduler.view", "jobs.dead.audit"]
    assert {name for name in (*names, "jobs.delay.00-1s", "jobsxemail") if re.search(MAY[user].read, name)} == reads


def test_an_operator_may_ask_for_work_queues_and_neither_consume_nor_bind_them() -> None:
    hand = MAY["hand"]
    assert re.search(hand.write, "jobs.email")
    assert not re.search(hand.read, "jobs.email")
    assert not re.search(hand.read, "jobs")
    assert not re.search(hand.configure, "jobs.email")


def test_only_the_deploy_tool_may_declare_and_only_our_names() -> None:
    for name, user in MAY.items():
        assert bool(re.search(user.configure, "jobs.email")) is (name == "deploy")
    assert not re.search(MAY["deploy"].configure, "jobsite")
    assert not re.search(MAY["deploy"].configure, "other.jobs")


def test_wherever_a_service_may_write_its_keys_are_held_down() -> None:
    exchanges = ("jobs", "jobs.delay", "jobs.dead", "jobs.scheduler", "jobs.dead.audit")
    for name, user in MAY.items():
        writes = {exchange for exchange in exchanges if re.search(user.write, exchange)}
        assert name == "deploy" or set(user.topics) == writes


def test_tags_open_the_management_interface_to_those_who_look_after_it() -> None:
    tags = {name: user.tags for name, user in MAY.items() if user.tags}
    assert tags == {"deploy": ("policymaker",), "eye": ("monitoring",), "hand": ("management",)}


words = st.sampled_from(["a", "b", "email", "x_1"])
patterns = st.lists(words | st.sampled_from(["*", "#"]), min_size=1, max_size=4).filter(lambda p: p.count("#") <= 1)


@given(patterns, st.lists(words, min_size=1, max_size=5))
def test_a_permission_fits_exactly_the_kinds_that_its_pattern_fits(pattern: list[str], kind: list[str]) -> None:
    regex = re.compile(f"^{kinds_regex('.'.join(pattern))}$")
    if pattern != ["#"]:  # refused in topology.yaml
        assert bool(regex.search(".".join(kind))) is matches(".".join(pattern), ".".join(kind))


@pytest.mark.parametrize("name", ["", ".audit"])
def test_the_committed_definitions_are_those_of_the_committed_topology(name: str) -> None:
    topology, exported = f"rabbitmq/topology{name}.yaml", f"rabbitmq/definitions{name}.json"
    assert (REPO / exported).read_text() == dumps(definitions(read_spec(REPO / topology))), (
        f"run: penstock topology export --file {topology} --output {exported}"
    )


def test_definitions_are_json_with_an_entry_a_line() -> None:
    text = dumps(definitions(SPEC))
    assert json.loads(text) == definitions(SPEC)
    assert len(text.splitlines()) > sum(map(len, definitions(SPEC).values()))


def test_exported_users_cannot_log_in_until_a_password_is_set() -> None:
    assert {user["password_hash"] for user in definitions(SPEC)["users"]} == {""}


@pytest.mark.parametrize(
    ("version", "count"), [("3.10", 0), ("3.11.9", 0), ("3.12", 1), ("3.13.7", 1), ("4", 1), ("4.3.6", 1)]
)
def test_a_consumer_timeout_is_a_policy_where_the_broker_knows_one(version: str, count: int) -> None:
    found = definitions(SPEC, version)["policies"]
    assert len(found) == count
    for policy in found:
        assert policy["apply-to"] == "quorum_queues"
        assert policy["definition"] == {"consumer-timeout": 3_600_000}
        assert re.search(policy["pattern"], "jobs.reports")
        assert not re.search(policy["pattern"], "jobs.reports.dead")


def test_a_queue_without_tunables_has_no_policy() -> None:
    assert [policy.name for policy in policies(SPEC, (4, 3))] == ["jobs.reports"]


@pytest.mark.parametrize("text", ["", "x", "four", "3.9.29", "3", "2.8", "4x" * 3000, "99999"])
def test_a_version_that_is_none_or_too_old_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"not a RabbitMQ version|came with 3\.10"):
        version_of(text)


def test_a_password_hash_is_the_salt_and_the_digest_of_salt_and_password() -> None:
    raw = b64decode(password_hash("geheim", b"\x01\x02\x03\x04"))
    assert raw == b"\x01\x02\x03\x04" + sha256(b"\x01\x02\x03\x04geheim").digest()
    assert password_hash("geheim") != password_hash("geheim")


def test_passwords_are_read_from_files_named_by_user(tmp_path: Path) -> None:
    (tmp_path / "mailer").write_text("geheim\n")
    (tmp_path / ".hidden").write_text("x")
    assert read_passwords(tmp_path, ["mailer", "orders"]) == {"mailer": "geheim"}


def test_every_bad_password_file_is_told_and_no_password_shown(tmp_path: Path) -> None:
    (tmp_path / "mialer").write_text("hunter2")
    (tmp_path / "orders").write_text("\n")
    (tmp_path / "eye").write_bytes(b"hunter2\xff")
    (tmp_path / "hand").mkdir()
    with pytest.raises(ConfigError) as caught:
        read_passwords(tmp_path, ["mailer", "orders", "eye", "hand"])
    assert len(caught.value.problems) == 4
    assert "no user 'mialer'" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="nowhere: No such file"):
        read_passwords(tmp_path / "nowhere", ["mailer"])
