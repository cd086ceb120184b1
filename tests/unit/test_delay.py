"""The delay cascade, walked through by routing alone: every delay waits exactly, and nothing else gets in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import islice

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock.delay import (
    LEVELS,
    MAX_DELAY,
    MAX_SECONDS,
    Target,
    cascade,
    kind_key,
    level_exchange,
    level_queue,
    queue_key,
    target_of,
    whole_seconds,
)
from penstock.topology.build import build
from penstock.topology.names import DELAY, UNROUTED
from penstock.topology.routing import Router
from penstock.topology.spec import QueueSpec, Spec

TOPOLOGY = build(
    Spec((QueueSpec("email", ("email.*",)), QueueSpec("audit", everything=True)), aliases=(("mail", "email"),))
)
QUEUES = {queue.name: queue for queue in TOPOLOGY.queues}
ROUTER = Router(TOPOLOGY)

seconds = st.integers(1, MAX_SECONDS) | st.integers(0, LEVELS - 1).map(lambda bit: 2**bit)
words = st.sampled_from(["", "2", "x", "00", "01", "10", "*", "#", "q", "k", "-1", "é"])


def walk(key: str) -> tuple[list[int], set[str]]:
    """Follow *key* from the entry; return the waits on the way in milliseconds, and the queues it ends in."""
    waits: list[int] = []
    exchange = DELAY
    for _ in range(LEVELS + 1):
        queues = ROUTER.queues(exchange, key)
        if len(queues) != 1 or "x-message-ttl" not in QUEUES[queues[0]].arguments:
            return waits, set(queues)
        waits.append(QUEUES[queues[0]].arguments["x-message-ttl"])
        exchange = QUEUES[queues[0]].arguments["x-dead-letter-exchange"]
    raise AssertionError(f"{key} goes round for ever: {waits}")


def set_bits(delay: int) -> list[int]:
    """The powers of two that make up *delay*, the largest first."""
    return [2**bit for bit in reversed(range(LEVELS)) if delay >> bit & 1]


@given(seconds)
@example(1)
@example(MAX_SECONDS)
def test_by_queue_every_delay_waits_once_per_set_bit_and_reaches_that_queue_alone(delay: int) -> None:
    waits, ends = walk(queue_key(delay, "jobs.email"))
    assert waits == [1000 * bit for bit in set_bits(delay)]
    assert sum(waits) == 1000 * delay
    assert ends == {"jobs.email"}


@given(seconds)
@example(1)
@example(MAX_SECONDS)
def test_by_kind_every_delay_waits_exactly_and_reaches_every_queue_bound_to_the_kind(delay: int) -> None:
    waits, ends = walk(kind_key(delay, "email.send"))
    assert sum(waits) == 1000 * delay
    assert ends == {"jobs.email", "jobs.audit"}


@pytest.mark.parametrize("key", [queue_key(0, "jobs.email"), queue_key(0, "jobs.mail")])
def test_no_delay_at_all_is_delivered_at_once_to_a_queue_by_its_name_or_a_former_one(key: str) -> None:
    assert walk(key) == ([], {"jobs.email"})


@given(
    seconds, st.sampled_from(["q.jobs.gone", "q.email", "q.jobs.email.dead", "k.emial.send", "k.email", "k.jobs.email"])
)
def test_a_delayed_key_for_nobody_waits_and_then_lands_in_unrouted(delay: int, target: str) -> None:
    key = queue_key(delay, "x").removesuffix("q.x") + target
    waits, ends = walk(key)
    assert sum(waits) == 1000 * delay
    assert ends == {UNROUTED}


def entry_takes(key: Sequence[str]) -> bool:
    return bool(ROUTER.queues(DELAY, ".".join(key)))


@given(seconds, st.sampled_from(["q.jobs.email", "k.email.send"]), st.data())
def test_a_key_with_a_digit_too_many_or_too_few_is_returned(delay: int, target: str, data: st.DataObject) -> None:
    digits = queue_key(delay, "x").split(".")[:LEVELS]
    less = data.draw(st.integers(0, LEVELS - 1))
    more = data.draw(st.lists(st.sampled_from("01"), min_size=1, max_size=30))
    assert not entry_takes([*digits[:less], *target.split(".")])
    assert not entry_takes([*digits, *more, *target.split(".")])


@given(seconds, words, st.data())
def test_a_wrong_word_at_or_above_the_highest_set_bit_is_returned(delay: int, word: str, data: st.DataObject) -> None:
    key = queue_key(delay, "jobs.email").split(".")
    key[data.draw(st.integers(0, key.index("1")))] = word
    assert not entry_takes(key)


@given(st.integers(2, MAX_SECONDS), words, st.data())
def test_a_wrong_word_below_the_highest_set_bit_never_reaches_a_work_queue(
    delay: int, word: str, data: st.DataObject
) -> None:
    key = queue_key(delay, "jobs.email").split(".")
    at = data.draw(st.integers(key.index("1"), LEVELS - 1))
    key[at] = word
    _, ends = walk(".".join(key))
    assert ends <= {UNROUTED}


@given(
    seconds, st.sampled_from(["", "q", "k", "x.jobs.email", "Q.jobs.email", "jobs.email", ".q.jobs.email", "1.q.jobs"])
)
def test_a_key_without_a_proper_target_is_returned(delay: int, target: str) -> None:
    digits = queue_key(delay, "x").split(".")[:LEVELS]
    assert not entry_takes([*digits, *target.split(".")])
    assert not entry_takes([*"0" * LEVELS, *target.split(".")])
    assert not entry_takes(digits)


@given(st.text(alphabet="01qk.*#ab", max_size=120))
def test_whatever_the_entry_takes_has_the_form_of_a_key(key: str) -> None:
    parts = key.split(".")
    if entry_takes(parts):
        assert len(parts) > LEVELS + 1
        assert parts[LEVELS] in "qk"


@given(st.integers(0, MAX_SECONDS), st.sampled_from(["jobs.email", "jobs.a.b", "x"]))
def test_the_target_of_a_key_is_what_it_was_made_for(delay: int, name: str) -> None:
    assert target_of(queue_key(delay, name)) == Target("queue", name)
    assert target_of(kind_key(delay, name)) == Target("kind", name)


@pytest.mark.parametrize(
    "key", ["", "email.send", "0.1.q.jobs.email", "2." * LEVELS + "q.jobs.email", "0." * LEVELS + "q."]
)
def test_other_keys_have_no_target(key: str) -> None:
    assert target_of(key) is None


@given(st.integers(-10, MAX_SECONDS * 1_000_000))
def test_delays_are_rounded_to_the_nearest_second_and_at_least_one(microseconds: int) -> None:
    delay = timedelta(microseconds=microseconds)
    if microseconds < 0:
        with pytest.raises(ValueError, match="negative"):
            whole_seconds(delay)
    else:
        rounded = whole_seconds(delay)
        assert rounded >= 1
        assert abs(timedelta(seconds=rounded) - delay) <= timedelta(seconds=0.5) or rounded == 1


def test_halves_are_rounded_up() -> None:
    assert [whole_seconds(timedelta(seconds=s)) for s in (0, 1.499999, 1.5, 2.5, 3.5)] == [1, 1, 2, 3, 4]


def test_delays_up_to_194_days_are_taken_and_longer_ones_refused_with_the_limit() -> None:
    assert whole_seconds(MAX_DELAY) == MAX_SECONDS
    assert MAX_DELAY.days == 194
    for delay in (MAX_DELAY + timedelta(seconds=0.5), timedelta(days=195), timedelta.max):
        with pytest.raises(ValueError, match=r"16777215 s \(194 days\)"):
            whole_seconds(delay)


@pytest.mark.parametrize("delay", [-1, MAX_SECONDS + 1])
def test_a_key_cannot_be_made_for_seconds_out_of_range(delay: int) -> None:
    with pytest.raises(ValueError, match="not between 0 and 16777215"):
        queue_key(delay, "jobs.email")
    with pytest.raises(ValueError, match="not between"):
        kind_key(delay, "email.send")


def test_levels_sort_and_speak_in_a_listing() -> None:
    names = [level_queue(level) for level in range(LEVELS)]
    assert names == sorted(names)
    assert [name.removeprefix("jobs.delay.") for name in islice(names, 0, None, 4)] == [
        "00-1s", "04-16s", "08-4m", "12-1h", "16-18h", "20-12d",
    ]  # fmt: skip
    assert names[23] == "jobs.delay.23-97d"


def test_the_entry_has_fifty_bindings_and_no_alternate_exchange() -> None:
    topology = cascade()
    assert sum(binding.source == DELAY for binding in topology.bindings) == 50
    entry, *behind = topology.exchanges
    assert (entry.name, entry.internal, dict(entry.arguments)) == (DELAY, False, {})
    assert [exchange.name for exchange in behind] == [level_exchange(level) for level in range(LEVELS)]
    assert all(exchange.internal and exchange.arguments == {"alternate-exchange": UNROUTED} for exchange in behind)
