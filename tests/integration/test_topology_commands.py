"""``penstock topology`` against a real broker: what it finds, what it creates, what it refuses, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.brokers import Vhost, manage, quoted
from tests.support.commands import Finished, penstock_here

TOPOLOGY = "queues: {email: [email.*], reports: [report.*]}\n"

Topology = Callable[..., Finished]


@pytest.fixture
def topology(vhost: Vhost, tmp_path: Path) -> Topology:
    """Run ``penstock topology`` on a virtual host of the test's own; *yaml* describes what is wanted."""

    def run(*words: str, yaml: str = TOPOLOGY, **environment: str) -> Finished:
        file = tmp_path / "topology.yaml"
        file.write_text(yaml)
        settings = {"RABBITMQ_URL": vhost.url, "RABBITMQ_MANAGEMENT_URL": vhost.broker.management_url}
        return penstock_here("topology", *words, "--file", str(file), **{**settings, **environment})

    return run


def api(vhost: Vhost, method: str, path: str, body: object = None) -> object:
    return manage(vhost.broker, method, path.replace("VHOST", quoted(vhost.name)), body)


def test_apply_creates_everything_and_a_second_one_nothing(topology: Topology) -> None:
    assert topology("plan").code == 6
    first = topology("apply", "--json")
    assert (first.code, first.err) == (0, "")
    assert len(json.loads(first.out)["done"]) > 50
    second = topology("apply", "--json")
    assert (second.code, json.loads(second.out)) == (0, {"done": [], "left": [], "policies": True})
    plan = topology("plan")
    assert (plan.code, plan.out.partition(":")[0]) == (0, "no difference")
    assert json.loads(topology("plan", "--json").out) == []


def test_what_somebody_deleted_is_found_and_put_back(topology: Topology, vhost: Vhost) -> None:
    assert topology("apply").code == 0
    api(vhost, "DELETE", "/api/queues/VHOST/jobs.delay.03-8s")
    api(vhost, "DELETE", f"/api/bindings/VHOST/e/jobs/q/jobs.email/{quoted('email.*')}")
    plan = topology("plan")
    assert plan.code == 6
    assert "+ queue jobs.delay.03-8s: is missing" in plan.out
    assert "+ binding jobs → queue jobs.email by email.*: is missing" in plan.out
    assert "2 differences: 2 creatable" in plan.out
    assert topology("apply").code == 0
    assert topology("plan").code == 0


def test_another_argument_is_told_with_both_values_and_nothing_is_changed(topology: Topology) -> None:
    assert topology("apply").code == 0
    changed = "queues: {email: {binds: [email.*], delivery_limit: 7}, reports: [report.*], new: [new.*]}\n"
    plan = topology("plan", yaml=changed)
    assert plan.code == 6
    assert "! queue jobs.email: x-delivery-limit is 20 on the broker, wanted is 7" in plan.out
    apply = topology("apply", yaml=changed)
    assert apply.code == 5
    assert apply.err.count("\n") == 1
    assert "call it email2 in topology.yaml" in apply.err
    assert "queue jobs.new: is missing" in topology("plan", yaml=changed).out


def test_following_the_way_to_migrate_ends_in_the_wanted_topology(topology: Topology, vhost: Vhost) -> None:
    assert topology("apply").code == 0
    migrated = (
        "queues: {email2: {binds: [email.*], delivery_limit: 7}, reports: [report.*]}\naliases: {email: email2}\n"
    )
    apply = topology("apply", yaml=migrated)
    assert apply.code == 0
    assert "? queue jobs.email: is not in topology.yaml, and holds 0 messages" in apply.out
    for queue in ("jobs.email", "jobs.email.dead"):
        api(vhost, "DELETE", f"/api/queues/VHOST/{queue}")
    assert topology("plan", yaml=migrated).code == 0


def test_what_is_unknown_is_told_and_left_alone(topology: Topology, vhost: Vhost) -> None:
    assert topology("apply").code == 0
    api(vhost, "PUT", "/api/queues/VHOST/jobs.old", {"durable": True, "arguments": {"x-queue-type": "quorum"}})
    api(vhost, "PUT", "/api/queues/VHOST/unrelated", {"durable": True})
    plan = topology("plan", "--json")
    assert plan.code == 6
    assert [(found["subject"], found["effort"]) for found in json.loads(plan.out)] == [
        ("queue jobs.old", "informational")
    ]
    assert topology("apply").code == 0
    assert topology("plan").code == 6


def test_a_policy_that_would_drop_jobs_is_found_and_refused(topology: Topology, vhost: Vhost) -> None:
    assert topology("apply").code == 0
    definition = {"pattern": "^jobs", "definition": {"overflow": "drop-head"}, "apply-to": "queues"}
    api(vhost, "PUT", "/api/policies/VHOST/theirs", definition)
    limit = {"pattern": "^jobs", "definition": {"max-length": 1000}, "apply-to": "queues"}
    api(vhost, "PUT", "/api/operator-policies/VHOST/operators", limit)
    plan = topology("plan")
    assert "! queue jobs.email: policy theirs sets overflow to drop-head" in plan.out
    assert "! queue jobs.delay.00-1s: policy operators sets max-length to 1000" in plan.out
    assert topology("apply").code == 5


def test_policies_are_set_where_the_broker_knows_them(topology: Topology, vhost: Vhost, broker_version: str) -> None:
    tuned = "queues: {email: {binds: [email.*], consumer_timeout: 1h}}\n"
    assert topology("apply", yaml=tuned).code == 0
    found = api(vhost, "GET", "/api/policies/VHOST")
    assert isinstance(found, list)
    known = [] if broker_version == "3.10" else [("jobs.email", {"consumer-timeout": 3_600_000}, "quorum_queues")]
    assert [(policy["name"], policy["definition"], policy["apply-to"]) for policy in found] == known
    assert topology("plan", yaml=tuned).code == 0


def test_without_the_management_api_apply_declares_all_the_same_and_says_what_it_could_not_do(
    topology: Topology,
) -> None:
    apply = topology("apply", RABBITMQ_MANAGEMENT_URL="http://127.0.0.1:1")
    assert apply.code == 0
    assert apply.err.count("\n") == 1
    assert "declared without looking: no policies set, no drift seen" in apply.err
    assert topology("plan").code == 0
    drifted = "queues: {email: {binds: [email.*], delivery_limit: 7}, reports: [report.*]}\n"
    refused = topology("apply", yaml=drifted, RABBITMQ_MANAGEMENT_URL="http://127.0.0.1:1")
    assert refused.code == 5
    assert "queue jobs.email: x-delivery-limit is '20' on the broker, wanted is '7'" in refused.err


@pytest.mark.parametrize("command", ["plan", "apply"])
def test_refusals_and_outages_are_one_line_and_an_exit_code(topology: Topology, vhost: Vhost, command: str) -> None:
    wrong = vhost.url.replace(vhost.broker.password, "wrong")
    cases = {
        4: {"RABBITMQ_URL": wrong},
        3: {
            "RABBITMQ_URL": "amqp://127.0.0.1:1",
            "RABBITMQ_MANAGEMENT_URL": "http://127.0.0.1:1",
            "PENSTOCK_CONNECT_TIMEOUT": "0",
        },
        5: {"RABBITMQ_URL": "ampq://127.0.0.1"},
    }
    for code, environment in cases.items():
        done = topology(command, **environment)
        assert (done.code, done.err.count("\n"), done.out) == (code, 1, ""), done
        assert vhost.broker.password not in done.err
    missing = topology(command, RABBITMQ_URL=vhost.broker.url_for("nowhere"))
    assert (missing.code, missing.err.count("\n")) == (4, 1), missing


def test_while_the_broker_is_away_each_try_is_a_line(topology: Topology) -> None:
    away = {"RABBITMQ_URL": "amqp://127.0.0.1:1", "RABBITMQ_MANAGEMENT_URL": "http://127.0.0.1:1"}
    done = topology("apply", PENSTOCK_CONNECT_TIMEOUT="6", **away)
    assert done.code == 3
    *tries, last = done.err.splitlines()
    assert tries
    assert all(line.startswith("penstock: try ") for line in tries)
    assert "amqp://guest:***@127.0.0.1:1/%2F: cannot be reached" in last


def test_a_broken_file_is_told_by_line_whichever_command_reads_it(topology: Topology, tmp_path: Path) -> None:
    for words in (["plan"], ["apply"], ["export"], ["users", "--passwords-from", str(tmp_path)]):
        done = topology(*words, yaml="queues:\n  email: ['#']\n")
        assert (done.code, done.err.count("\n")) == (5, 1)
        assert "topology.yaml:2: queue email: kind pattern '#'" in done.err


def test_export_writes_the_same_to_screen_and_file(topology: Topology, tmp_path: Path) -> None:
    target = tmp_path / "definitions.json"
    shown = topology("export", "--for", "3.10")
    assert shown.code == 0
    assert topology("export", "--for", "3.10", "--output", str(target)).code == 0
    assert target.read_text() == shown.out
    assert topology("export", "--for", "3.9").code == 5
    assert topology("export", "--output", str(tmp_path / "no" / "where")).code == 5
