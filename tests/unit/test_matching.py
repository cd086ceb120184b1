"""Topic patterns and routes, against definitions so simple that they can be read."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.topology.matching import matches
from penstock.topology.model import Binding, Topology
from penstock.topology.routing import Router
from tests.support.topologies import exchange, queue, topology

words = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=5)
names = st.sampled_from(["x", "y", "z"])


def naive(pattern: tuple[str, ...], key: tuple[str, ...]) -> bool:
    """The rule as it is told: the first word decides, the rest follows."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return any(naive(pattern[1:], key[skipped:]) for skipped in range(len(key) + 1))
    return bool(key) and pattern[0] in ("*", key[0]) and naive(pattern[1:], key[1:])


def split(text: str) -> tuple[str, ...]:
    return tuple(text.split(".")) if text else ()


@given(words.map(".".join), words.map(".".join))
def test_matching_follows_the_rule(pattern: str, key: str) -> None:
    assert matches(pattern, key) == naive(split(pattern), split(key))


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("email.*", "email.send", True),
        ("email.*", "email", False),
        ("email.*", "email.send.now", False),
        ("email.#", "email", True),
        ("#", "", True),
        ("*", "", False),
        ("*.*", ".", True),
        ("a.#.z", "a.z", True),
        ("*.*.0.1.#", "1.0.0.1.q.jobs.email", True),
    ],
)
def test_patterns_people_write_match_what_they_mean(pattern: str, key: str, fits: bool) -> None:
    assert matches(pattern, key) is fits


def test_a_pattern_of_many_hashes_is_matched_without_trying_every_split() -> None:
    assert not matches(".".join(["#", "a"] * 50), ".".join(["a"] * 49))


@st.composite
def networks(draw: st.DrawFn) -> Topology:
    """Three exchanges of any type, tied to each other and to three queues at random."""
    exchanges = [
        exchange(name, draw(st.sampled_from(["topic", "direct", "fanout"])), alternate=draw(st.none() | names))
        for name in ("x", "y", "z")
    ]
    queues = [queue(name) for name in ("q0", "q1", "q2")]
    keys = words.map(".".join)
    to_queues = st.builds(Binding, names, st.sampled_from(["q0", "q1", "q2"]), keys)
    to_exchanges = st.builds(Binding, names, names, keys, st.just(True))
    bindings = draw(st.lists(to_queues | to_exchanges, max_size=8))
    return topology(*exchanges, *queues, *bindings)


def reached(net: Topology, start: str, key: str) -> set[str]:
    """What *key* reaches, by asking again and again until nothing new is found."""

    @cache
    def step(name: str) -> frozenset[tuple[str, bool]]:
        (source,) = (candidate for candidate in net.exchanges if candidate.name == name)
        fitting = {
            (binding.destination, binding.to_exchange)
            for binding in net.bindings
            if binding.source == name
            and (
                source.type == "fanout"
                or (source.type == "direct" and binding.key == key)
                or (source.type == "topic" and naive(split(binding.key), split(key)))
            )
        }
        alternate = source.arguments.get("alternate-exchange")
        return frozenset(fitting or ({(alternate, True)} if alternate else set()))

    found = {(start, True)}
    while True:
        more = found | {hit for name, is_exchange in found if is_exchange for hit in step(name)}
        if more == found:
            return {name for name, is_exchange in found if not is_exchange}
        found = more


@given(networks(), names, words.map(".".join))
def test_routes_follow_bindings_and_alternates_to_every_queue_once(net: Topology, start: str, key: str) -> None:
    routes = Router(net).queues(start, key)
    assert set(routes) == reached(net, start, key)
    assert len(set(routes)) == len(routes)


def test_an_unknown_exchange_reaches_nothing() -> None:
    assert Router(topology(queue("q"))).queues("nowhere", "q") == ()
