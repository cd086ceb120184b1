"""What is declared for a description: every queue safe, every exchange with the right way out."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.delay import ANY_DELAY
from penstock.topology.build import build
from penstock.topology.model import Binding, Queue, Topology
from penstock.topology.names import AUDIT, DEAD, DELAY, DELIVER, JOBS, SCHEDULER, UNROUTED
from penstock.topology.reading import parse_spec
from penstock.topology.routing import Router

TOPOLOGY = build(
    parse_spec(
        """
        queues:
          email: [email.*]
          reports: {binds: [report.*, invoice.#], delivery_limit: 50}
          audit: {binds: all}
        aliases: {mail: email}
        """
    )
)
ROUTER = Router(TOPOLOGY)
WORK = ("jobs.email", "jobs.reports", "jobs.audit")
KEEPS_THE_NEWEST = ("jobs.scheduler.view", "jobs.dead.audit")


def queue(name: str, topology: Topology = TOPOLOGY) -> Queue:
    return next(queue for queue in topology.queues if queue.name == name)


def test_every_queue_is_a_quorum_queue_that_refuses_rather_than_drops_and_has_an_explicit_delivery_limit() -> None:
    for each in TOPOLOGY.queues:
        assert each.arguments["x-queue-type"] == "quorum"
        assert each.arguments["x-overflow"] == "reject-publish" or each.name in KEEPS_THE_NEWEST
        assert each.arguments["x-delivery-limit"] in ((20, 50) if each.name in WORK else (1_000_000,))


def test_every_queue_that_dead_letters_does_it_at_least_once_and_never_by_the_default_exchange() -> None:
    lettering = [each for each in TOPOLOGY.queues if "x-dead-letter-exchange" in each.arguments]
    assert len(lettering) == len(WORK) + 24
    for each in lettering:
        assert each.arguments["x-dead-letter-strategy"] == "at-least-once"
        assert each.arguments["x-dead-letter-exchange"].startswith("jobs.")


def test_a_work_queue_has_no_length_limit_and_its_own_dead_letter_queue() -> None:
    arguments = queue("jobs.email").arguments
    assert arguments == {
        "x-queue-type": "quorum",
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "jobs.dead",
        "x-dead-letter-routing-key": "jobs.email",
        "x-dead-letter-strategy": "at-least-once",
        "x-delivery-limit": 20,
        "x-queue-leader-locator": "balanced",
    }
    assert ROUTER.queues(DEAD, "jobs.email") == ("jobs.email.dead",)


def test_only_one_scheduler_is_active_at_a_time() -> None:
    assert queue("jobs.scheduler").arguments["x-single-active-consumer"] is True
    assert ROUTER.queues(SCHEDULER, "knock") == ("jobs.scheduler",)


def test_the_newest_state_of_the_schedulers_lies_where_it_can_be_looked_at() -> None:
    assert set(ROUTER.queues(SCHEDULER, "state")) == {"jobs.scheduler", "jobs.scheduler.view"}
    arguments = queue("jobs.scheduler.view").arguments
    assert (arguments["x-max-length"], arguments["x-overflow"]) == (1, "drop-head")


def test_what_is_published_to_returns_the_unroutable_and_what_dead_letters_reach_keeps_it() -> None:
    alternate = {each.name: each.arguments.get("alternate-exchange") for each in TOPOLOGY.exchanges}
    internal = {each.name for each in TOPOLOGY.exchanges if each.internal}
    levels = {f"jobs.delay.{level:02}" for level in range(24)}
    assert {name for name, to in alternate.items() if to is None} == {AUDIT, JOBS, DELAY, SCHEDULER, UNROUTED}
    assert {name for name, to in alternate.items() if to == UNROUTED} == {DEAD, DELIVER} | levels
    assert internal == {DELIVER, UNROUTED} | levels
    assert {each.type for each in TOPOLOGY.exchanges} == {"topic"}


@pytest.mark.parametrize(
    ("exchange", "key", "queues"),
    [
        (JOBS, "email.send", {"jobs.email", "jobs.audit"}),
        (JOBS, "invoice", {"jobs.reports", "jobs.audit"}),
        (JOBS, "invoice.eu.send", {"jobs.reports", "jobs.audit"}),
        (JOBS, "emial.send", set()),
        (JOBS, "jobs.email", set()),
        (DEAD, "jobs.mail", {"jobs.email.dead"}),
        (DEAD, "jobs.gone", {UNROUTED}),
        (DELIVER, "0." * 24 + "q.jobs.mail", {"jobs.email"}),
        (DELIVER, "0." * 24 + "q.jobs.audit", {"jobs.audit"}),
        (DELIVER, "0." * 24 + "q.email.send", {UNROUTED}),
        (DELIVER, "0." * 24 + "k.email.send", {"jobs.email", "jobs.audit"}),
        (DELIVER, "0." * 23 + "k.email.send", {UNROUTED}),
        (UNROUTED, "whatever", {UNROUTED}),
    ],
)
def test_a_key_reaches_the_queues_it_is_meant_for_and_no_other(exchange: str, key: str, queues: set[str]) -> None:
    assert set(ROUTER.queues(exchange, key)) == queues


def test_delivery_is_bound_after_exactly_as_many_words_as_there_are_levels() -> None:
    keys = [binding.key for binding in TOPOLOGY.bindings if binding.source == DELIVER]
    assert all(key.startswith(ANY_DELAY) and key.split(".")[24] in ("q", "k") for key in keys)


def test_nothing_is_declared_twice_and_every_binding_has_both_its_ends() -> None:
    exchanges = [each.name for each in TOPOLOGY.exchanges]
    queues = [each.name for each in TOPOLOGY.queues]
    assert len(exchanges) == len(set(exchanges))
    assert len(queues) == len(set(queues))
    assert len(TOPOLOGY.bindings) == len(set(TOPOLOGY.bindings))
    for binding in TOPOLOGY.bindings:
        assert binding.source in exchanges
        assert binding.destination in (exchanges if binding.to_exchange else queues)


def test_every_name_and_key_fits_amqp_even_at_the_longest() -> None:
    longest: Any = build(parse_spec(f"queues: {{{'q' * 150}: ['{'k' * 100}.{'k' * 99}']}}"))
    names = [part.name for part in (*longest.exchanges, *longest.queues)]
    assert max(map(len, names)) <= 255
    assert max(len(binding.key) for binding in longest.bindings) <= 255
    assert Binding(JOBS, "jobs." + "q" * 150, f"{'k' * 100}.{'k' * 99}") in longest.bindings
