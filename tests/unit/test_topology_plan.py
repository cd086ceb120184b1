"""The difference between what is wanted and what is live: every kind of drift is found, named and weighed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from penstock.topology.build import build
from penstock.topology.live import Found, Live, live_from
from penstock.topology.model import Binding, Exchange, Queue
from penstock.topology.plan import Difference, Effort, plan
from penstock.topology.policies import Policy, policies
from penstock.topology.reading import parse_spec

SPEC = parse_spec("queues: {email: [email.*], reports: {binds: [report.*], consumer_timeout: 1h}}")
WANTED = build(SPEC)
POLICIES = tuple(policies(SPEC, (4, 3)))
DIVERTING = Policy("theirs", ".*", {"alternate-exchange": "x"})
SAME = Live(
    exchanges={exchange.name: (exchange, Found()) for exchange in WANTED.exchanges},
    queues={queue.name: (queue, Found()) for queue in WANTED.queues},
    bindings=frozenset(WANTED.bindings),
    policies={policy.name: policy for policy in POLICIES},
)


def differences(live: Live) -> list[Difference]:
    return plan(WANTED, POLICIES, live)


def without_queue(live: Live, name: str) -> Live:
    return replace(
        live,
        queues={key: value for key, value in live.queues.items() if key != name},
        bindings=frozenset(binding for binding in live.bindings if binding.destination != name),
    )


def with_queue(live: Live, name: str, found: Found | None = None, **arguments: object) -> Live:
    queue, before = live.queues.get(name, (Queue(name), Found()))
    changed = {key.replace("_", "-"): value for key, value in arguments.items()}
    kept = {key: value for key, value in {**queue.arguments, **changed}.items() if value is not None}
    return replace(live, queues={**live.queues, name: (Queue(name, kept), found or before)})


def with_exchange(live: Live, exchange: Exchange, found: Found | None = None) -> Live:
    return replace(live, exchanges={**live.exchanges, exchange.name: (exchange, found or Found())})


def the_one(live: Live) -> Difference:
    found = differences(live)
    assert len(found) == 1, found
    return found[0]


def test_a_broker_that_is_as_wanted_has_no_difference() -> None:
    assert differences(SAME) == []


def test_on_an_empty_broker_everything_is_to_be_created_and_bindings_are_not_told_one_by_one() -> None:
    found = differences(Live())
    assert len(found) == len(WANTED.exchanges) + len(WANTED.queues) + len(POLICIES)
    assert {difference.effort for difference in found} == {Effort.CREATABLE}


def test_a_missing_queue_is_creatable() -> None:
    difference = the_one(without_queue(SAME, "jobs.email"))
    assert (str(difference), difference.effort) == ("queue jobs.email: is missing", Effort.CREATABLE)


def test_a_missing_exchange_stands_for_its_bindings_too() -> None:
    live = replace(
        SAME,
        exchanges={name: found for name, found in SAME.exchanges.items() if name != "jobs"},
        bindings=frozenset(binding for binding in SAME.bindings if binding.source != "jobs"),
    )
    assert str(the_one(live)) == "exchange jobs: is missing"


def test_a_missing_binding_is_creatable_and_its_key_readable() -> None:
    bindings = frozenset(b for b in SAME.bindings if not (b.source == "jobs.deliver" and b.key.endswith("k.email.*")))
    difference = the_one(replace(SAME, bindings=bindings))
    assert str(difference) == "binding jobs.deliver → queue jobs.email by any delay, k.email.*: is missing"
    assert difference.effort is Effort.CREATABLE


@pytest.mark.parametrize(
    ("live", "words", "way"),
    [
        (
            with_queue(SAME, "jobs.email", x_delivery_limit=7),
            "queue jobs.email: x-delivery-limit is 7 on the broker, wanted is 20",
            "call it email2 in topology.yaml",
        ),
        (
            with_queue(SAME, "jobs.email", x_dead_letter_exchange=None),
            "queue jobs.email: x-dead-letter-exchange is not set on the broker, wanted is jobs.dead",
            "start workers on email2",
        ),
        (
            with_queue(SAME, "jobs.email", x_max_length=9),
            "queue jobs.email: x-max-length is 9 on the broker, wanted is not set",
            "then delete it",
        ),
        (
            with_queue(SAME, "jobs.email.dead", x_queue_type="classic"),
            "queue jobs.email.dead: x-queue-type is classic on the broker, wanted is quorum",
            "replay or purge what is in jobs.email.dead",
        ),
        (
            with_queue(SAME, "jobs.delay.03-8s", x_message_ttl=8001),
            "queue jobs.delay.03-8s: x-message-ttl is 8001 on the broker, wanted is 8000",
            "let jobs.delay.03-8s run empty",
        ),
        (
            with_queue(SAME, "jobs.scheduler", x_single_active_consumer=1),
            "queue jobs.scheduler: x-single-active-consumer is 1 on the broker, wanted is true",
            "stop the schedulers",
        ),
        (
            with_queue(SAME, "jobs.email", Found(durable=False)),
            "queue jobs.email: durable is false on the broker, wanted is true",
            "a queue cannot be changed in place",
        ),
        (
            with_exchange(SAME, Exchange("jobs", "direct")),
            "exchange jobs: type is direct on the broker, wanted is topic",
            "delete jobs at a quiet moment",
        ),
        (
            with_exchange(SAME, Exchange("jobs", arguments={"alternate-exchange": "jobs.unrouted"})),
            "exchange jobs: alternate-exchange is jobs.unrouted on the broker, wanted is not set",
            "an exchange cannot be changed in place",
        ),
        (
            with_exchange(SAME, Exchange("jobs.delay", internal=True)),
            "exchange jobs.delay: internal is true on the broker, wanted is false",
            "an exchange cannot be changed in place",
        ),
        (
            with_exchange(SAME, Exchange("jobs.delay"), Found(auto_delete=True)),
            "exchange jobs.delay: auto-delete is true on the broker, wanted is false",
            "an exchange cannot be changed in place",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_changed_in_place_is_dangerous_and_told_with_both_values_and_the_way(
    live: Live, words: str, way: str
) -> None:
    difference = the_one(live)
    assert f"{difference.subject}: {difference.words}" == words
    assert difference.effort is Effort.DANGEROUS
    assert difference.way is not None
    assert way in difference.way


def policed(name: str, **effective: object) -> Live:
    definition = {key.replace("_", "-"): value for key, value in effective.items()}
    return with_queue(SAME, name, Found(policies=(Policy("theirs", ".*", definition),)))


@pytest.mark.parametrize(
    ("live", "words"),
    [
        (policed("jobs.email", overflow="drop-head"), "queue jobs.email: policy theirs sets overflow to drop-head"),
        (policed("jobs.email", overflow="reject-publish-dlx"), "sets overflow to reject-publish-dlx"),
        (policed("jobs.email", max_length=5), "sets max-length to 5"),
        (policed("jobs.email", max_length_bytes=5), "sets max-length-bytes to 5"),
        (policed("jobs.delay.00-1s", message_ttl=10), "sets message-ttl to 10"),
        (policed("jobs.email.dead", expires=10), "sets expires to 10"),
        (policed("jobs.email.dead", delivery_limit=20), "sets delivery-limit to 20: wanted is 1000000"),
        (policed("jobs.email", delivery_limit=19), "sets delivery-limit to 19: wanted is 20"),
        (
            with_exchange(SAME, Exchange("jobs"), Found(policies=(DIVERTING,))),
            "exchange jobs: policy theirs sets alternate-exchange to x",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_policy_that_endangers_jobs_is_found_although_the_arguments_are_right(live: Live, words: str) -> None:
    difference = the_one(live)
    assert words in str(difference)
    assert difference.effort is Effort.DANGEROUS


@pytest.mark.parametrize(
    "live",
    [
        policed("jobs.email", overflow="reject-publish"),
        policed("jobs.email", delivery_limit=20, consumer_timeout=1, target_group_size=3),
        with_queue(SAME, "jobs.reports", Found(policies=POLICIES)),
        with_exchange(
            SAME,
            Exchange("jobs.dead", arguments={"alternate-exchange": "jobs.unrouted"}),
            Found(policies=(DIVERTING,)),
        ),
        replace(SAME, policies={**SAME.policies, "theirs": Policy("theirs", ".*", {})}),
        with_queue(with_exchange(SAME, Exchange("jobsite")), "jobsite"),
        replace(SAME, bindings=SAME.bindings | {Binding("amq.topic", "other", "#")}),
    ],
)
def test_what_does_no_harm_or_is_not_ours_is_not_told(live: Live) -> None:
    assert differences(live) == []


@pytest.mark.parametrize(
    ("live", "words"),
    [
        (
            with_queue(SAME, "jobs.old", Found(messages=3)),
            "queue jobs.old: is not in topology.yaml, and holds 3 messages",
        ),
        (with_exchange(SAME, Exchange("jobs.events")), "exchange jobs.events: is not in topology.yaml"),
        (
            replace(SAME, policies={**SAME.policies, "jobs.old": POLICIES[0]}),
            "policy jobs.old: is not in topology.yaml",
        ),
        (
            replace(SAME, bindings=SAME.bindings | {Binding("jobs", "jobs.email", "report.*")}),
            "binding jobs → queue jobs.email by report.*: is not in topology.yaml: what fits it goes to jobs.email",
        ),
        (
            replace(SAME, bindings=SAME.bindings | {Binding("jobs", "tap", "#")}),
            "binding jobs → queue tap by #: is not in topology.yaml",
        ),
        (
            replace(SAME, bindings=SAME.bindings | {Binding("amq.topic", "jobs", "x", to_exchange=True)}),
            "binding amq.topic → exchange jobs by x: is not in topology.yaml",
        ),
        (
            with_queue(SAME, "jobs.reports", Found(policies=(Policy("theirs", ".*", {}),))),
            "policy jobs.reports: has no effect on queue jobs.reports, to which policy theirs applies",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_there_without_being_wanted_is_told_and_left_alone(live: Live, words: str) -> None:
    difference = the_one(live)
    assert words in str(difference)
    assert difference.effort is Effort.INFORMATIONAL


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: replace(p, definition={"consumer-timeout": 5}), "definition consumer-timeout is 5 on the broker"),
        (
            lambda p: replace(p, definition={**p.definition, "max-length": 5}),
            "definition max-length is 5 on the broker",
        ),
        (lambda p: replace(p, pattern=".*"), r"pattern is .* on the broker, wanted is ^jobs\.reports$"),
        (lambda p: replace(p, apply_to="all"), "apply-to is all on the broker, wanted is quorum_queues"),
        (lambda p: replace(p, priority=0), "priority is 0 on the broker, wanted is 10"),
    ],
)
def test_a_policy_of_ours_that_differs_is_simply_set_again(change: Callable[[Policy], Policy], words: str) -> None:
    difference = the_one(replace(SAME, policies={"jobs.reports": change(POLICIES[0])}))
    assert words in str(difference)
    assert difference.effort is Effort.CREATABLE


def test_the_answers_of_the_management_api_are_put_together() -> None:
    common = {"durable": True, "auto_delete": False}
    entry = {"pattern": ".*", "apply-to": "all", "priority": 1}
    live = live_from(
        exchanges=[{"name": "jobs", "type": "topic", "internal": False, "arguments": {}, "policy": "p", **common}],
        queues=[
            {
                "name": "q",
                "type": "quorum",
                "arguments": {},
                "policy": "p",
                "operator_policy": "o",
                "messages": 3,
                **common,
            },
            {"name": "r", "arguments": {"x-queue-type": "stream"}, "policy": None, "exclusive": None, **common},
        ],
        bindings=[
            {"source": "", "destination": "q", "destination_type": "queue", "routing_key": "q"},
            {"source": "jobs", "destination": "x", "destination_type": "exchange", "routing_key": "k"},
        ],
        policies=[{"name": "p", "definition": {"alternate-exchange": "x"}, **entry}],
        operator_policies=[
            {"name": "low", "definition": {}, **entry, "pattern": "^q"},
            {"name": "o", "definition": {}, **entry, "pattern": "^q$", "apply-to": "quorum_queues", "priority": 2},
            {"name": "other", "definition": {}, **entry, "pattern": "^q$", "apply-to": "classic_queues", "priority": 9},
            {"name": "erlang's own", "definition": {}, **entry, "pattern": "(?>", "priority": 9},
        ],
    )
    exchange, found = live.exchanges["jobs"]
    assert (exchange.type, [policy.definition for policy in found.policies]) == ("topic", [{"alternate-exchange": "x"}])
    queue, found = live.queues["q"]
    assert (queue.arguments, found.messages) == ({"x-queue-type": "quorum"}, 3)
    assert [policy.name for policy in found.policies] == ["p", "o"]
    queue, found = live.queues["r"]
    assert (queue.arguments, found) == ({"x-queue-type": "stream"}, Found())
    assert live.bindings == {Binding("jobs", "x", "k", to_exchange=True)}
    assert list(live.policies) == ["p"]
