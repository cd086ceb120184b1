"""Rules, dashboards and the runbook ask only for what a running system shows."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from penstock import Events, metrics
from penstock.topology.build import build
from penstock.topology.names import work_queue
from penstock.topology.reading import DEFAULT_FILE, read_spec
from services.demo.crew import Crew
from tests.support.brokers import Vhost
from tests.support.outboxes import migrated
from tests.support.processes import worker_process
from tests.support.queries import names, patterns, queries
from tests.support.rules import ROOT, rules
from tests.support.scrapes import get, ports_in
from tests.support.waiting import eventually
from tests.support.working import declare

pytestmark = pytest.mark.timeout(180)

#: What prometheus.yml asks the broker for.
PATHS = ("/metrics", "/metrics/detailed?family=queue_coarse_metrics&family=queue_consumer_count")

SCHEDULE = "schedules: {tick: {every: 1h, kind: email.tick}}\n"


async def shown(vhost: Vhost, folder: Path) -> set[str]:
    """The metrics of a worker, a relay, a scheduler, a publisher and the broker, all of them running."""
    await declare(vhost.url)
    store = await migrated(f"sqlite:///{folder}/store.db")
    schedules = folder / "schedules.yaml"
    schedules.write_text(SCHEDULE)
    settings = {"RABBITMQ_URL": vhost.url, "PENSTOCK_STORE_URL": store, "PENSTOCK_METRICS_PORT": "0"}
    found: set[str] = set()
    async with Crew(folder, settings) as crew:
        relay = await crew.start("relay", "-m", "penstock", "outbox", "run")
        scheduler = await crew.start("scheduler", "-m", "penstock", "scheduler", str(schedules))
        async with worker_process(vhost.url, folder, PENSTOCK_METRICS_PORT="0") as worker:
            logs = (worker.log, relay.log, scheduler.log)
            for port in [(await ports_in(log))[0] for log in logs]:
                found |= (await get(port, "/metrics")).families
        for path in PATHS:
            found |= families(await asyncio.to_thread(asked, vhost.broker.ports.prometheus, path))
    registry = CollectorRegistry()
    metrics.subscribe(Events(), registry)
    return found | families(generate_latest(registry))


def asked(port: int, path: str) -> bytes:
    """What the broker answers, which keeps the connection open."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return bytes(answer.read())


def families(page: bytes) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+) ", page.decode(), re.MULTILINE))


async def test_every_query_asks_for_metrics_that_a_running_system_shows(vhost: Vhost, tmp_path: Path) -> None:
    there = await shown(vhost, tmp_path) | {rule["record"] for rule in rules() if "record" in rule}
    for where, query in queries():
        assert names(query) <= there, f"{where} asks for {', '.join(sorted(names(query) - there))}, which nobody shows"
        for pattern in patterns(query):
            assert any(re.fullmatch(pattern, name) for name in there), f"{where}: {pattern} matches nothing"


def test_an_unknown_metric_in_a_query_would_be_found() -> None:
    asked = names('sum by (kind) (rate(penstock_jobs_totl{kind="a"}[5m])) / penstock_wait_seconds_bucket{le="1"}')
    assert asked == {"penstock_jobs_totl", "penstock_wait_seconds"}


def test_the_rules_tell_work_queues_from_all_others() -> None:
    spec = read_spec(ROOT / DEFAULT_FILE)
    [expression] = [rule["expr"] for rule in rules() if rule.get("record") == "queue:penstock_work_ready:sum"]
    [others] = re.findall(r'queue!~"(.*)"\}$', expression)
    others = others.replace("\\\\", "\\")
    told = {queue.name for queue in build(spec).queues if not re.fullmatch(others, queue.name)}
    assert told == {work_queue(queue.name) for queue in spec.queues}


async def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    """By promtool, as rules: what Grafana puts in for its variables is put in here."""
    text = "".join(
        f"  - {{record: 'a:b:c{number}', expr: {json.dumps(_filled(query))}}}\n"
        for number, (_, query) in enumerate(queries())
        if not query.startswith("label_values") and "…" not in query and re.search(r"[({]|\d", query)
    )
    file = tmp_path / "rules.yml"
    file.write_text(f"groups:\n- name: all\n  rules:\n{text}")
    async with Crew(tmp_path, {}) as crew:
        member = await crew.start("promtool", "check", "rules", str(file), program="promtool")
        await eventually(lambda: member.process.returncode is not None, within=60)
        assert member.process.returncode == 0, member.log.read_text()


def _filled(query: str) -> str:
    return query.replace("$__rate_interval", "1m").replace("$kind", "email.send").replace("$queue", ".+")
