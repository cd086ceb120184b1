"""What an overview makes of the broker's figures: when something is wrong, whether it lasts, how old the oldest is."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from penstock.errors import ConfigError
from penstock.overview import history, judging
from penstock.overview.model import Age, Broker, Level, Overview, QueueState, Share, Trouble
from penstock.overview.reading import _patterns
from penstock.overview.scrapes import targets

NOW = 1_800_000_000_000
MINUTE = 60_000
MINUTES = timedelta(minutes=1)

QUIET = QueueState("email", consumers=2, rate_in=1.0, rate_out=1.0, died=Share(0, 100))


def alerts(**changes: Any) -> dict[str, bool]:
    """What is wrong with a queue that is in order but for *changes*, and whether it fires."""
    return {trouble.alert: trouble.firing for trouble in judging.of_queue(replace(QUIET, **changes))}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"ready": 5}, {}),
        ({"ready": 5, "consumers": 0}, {"PenstockNoConsumers": False}),
        ({"ready": 5, "consumers": 0, "ready_lasts": True}, {"PenstockNoConsumers": True}),
        ({"ready": 0, "consumers": 0}, {}),
        ({"stuck": 3}, {"PenstockDeadLetteringStuck": False}),
        ({"stuck": 3, "stuck_lasts": True}, {"PenstockDeadLetteringStuck": True}),
        ({"ready": 5, "silence_lasts": True}, {"PenstockConsumerSilent": True}),
        ({"ready": 5, "silence_lasts": True, "running": 1}, {}),
        ({"ready": 0, "silence_lasts": True}, {}),
        ({"dead": 1}, {"PenstockDeadLetters": True}),
        ({"dead": 50, "dead_new": 10}, {"PenstockDeadLettersGrow": True}),
        ({"died": Share(6, 100)}, {"PenstockJobFailureRate": True}),
        ({"died": Share(5, 100)}, {}),
        ({"died": Share(19, 19)}, {}),
        ({"failed": {"a": Share(1, 100), "b": Share(2, 20)}}, {"PenstockAttemptFailureRate": True}),
        ({"oldest": Age(600, beyond=True)}, {"PenstockWaitLong": True}),
        ({"oldest": Age(301)}, {"PenstockWaitLong": False}),
        ({"oldest": Age(300)}, {}),
        ({"grew": 101, "growth_lasts": True}, {"PenstockBacklogGrows": True}),
        ({"grew": 101}, {"PenstockBacklogGrows": False}),
        ({"grew": 100, "growth_lasts": True}, {}),
    ],
)
def test_what_is_wrong_with_a_queue(changes: dict[str, Any], expected: dict[str, bool]) -> None:
    assert alerts(**changes) == expected


def test_what_fires_is_told_first() -> None:
    queue = replace(QUIET, ready=5, consumers=0, dead=1)
    assert [trouble.alert for trouble in judging.of_queue(queue)] == ["PenstockDeadLetters", "PenstockNoConsumers"]


def test_what_is_wrong_beyond_queues() -> None:
    overview = Overview(Broker("4.3.6", 1, [Trouble("PenstockBrokerAlarm", "memory")]), [], [], unrouted=2)
    assert [trouble.alert for trouble in judging.of_all(overview)] == ["PenstockBrokerAlarm", "PenstockUnrouted"]
    assert judging.of_level(Level("jobs.delay.00-1s", "1s", waiting=4)) == []
    assert [trouble.firing for trouble in judging.of_level(Level("jobs.delay.00-1s", "1s", 4, stuck=2))] == [False]


def sampled(**values: list[int]) -> dict[str, Any]:
    """A queue as the management API tells it, with samples a minute apart, the newest first."""
    return {
        f"{name}_details": {
            "samples": [{"timestamp": NOW - n * MINUTE, "sample": value} for n, value in enumerate(found)]
        }
        for name, found in values.items()
    }


def test_a_state_lasts_when_it_held_in_every_sample() -> None:
    def stuck(messages: float, ready: float, unacked: float) -> bool:
        return messages - ready - unacked > 0

    kept = sampled(messages=[5, 5, 5, 5], messages_ready=[2, 3, 4, 5], messages_unacknowledged=[1, 1, 0, 0])
    assert history.lasted(kept, 2 * MINUTES, NOW, stuck)
    assert not history.lasted(kept, 3 * MINUTES, NOW, stuck)
    assert not history.lasted({}, MINUTES, NOW, stuck)


def test_a_backlog_grows_when_it_has_at_every_sample() -> None:
    kept = sampled(messages_ready=[900, 700, 500, 300, 100])
    assert history.growth(kept, "messages_ready", 950, 2 * MINUTES, NOW) == 450
    assert history.grows(kept, "messages_ready", 100, 2 * MINUTES, NOW)
    assert not history.grows(kept, "messages_ready", 400, 2 * MINUTES, NOW)
    assert not history.grows(sampled(messages_ready=[900, 700, 690, 300, 600]), "messages_ready", 100, 2 * MINUTES, NOW)


def published(total: int, *values: int) -> dict[str, Any]:
    """The statistics of a queue to which *total* were published, and *values* a minute ago, two, …"""
    return {"message_stats": {"publish": total, **sampled(publish=[total, *values])}}


def test_the_oldest_has_waited_since_all_but_the_ready_ones_were_published() -> None:
    assert history.oldest(10, published(100, 90, 80), NOW) == Age(60.0)
    assert history.oldest(15, published(100, 90, 80), NOW) == Age(90.0)
    assert history.oldest(20, published(100, 90, 80), NOW) == Age(120.0)
    assert history.oldest(50, published(100, 90, 80), NOW) == Age(120.0, beyond=True)


def test_an_age_that_cannot_be_known_is_none() -> None:
    assert history.oldest(0, published(100, 90), NOW) is None
    assert history.oldest(500, published(100, 90), NOW) is None  # counted anew since
    assert history.oldest(5, {}, NOW) is None


def test_an_increase_is_that_of_the_window() -> None:
    stats = {"message_stats": {"ack": 70, **sampled(ack=[70, 60, 50, 40, 30, 20, 10])}}
    assert history.increase(stats, "ack", 5 * MINUTES, NOW) == 50
    assert history.increase({}, "ack", MINUTES, NOW) == 0


def test_questions_stay_short_and_fit_every_queue() -> None:
    names = [f"jobs.{number}{'x' * 100}" for number in range(200)]
    patterns = list(_patterns(names))
    assert len(patterns) > 1
    assert max(map(len, patterns)) < 4_300
    assert sum(pattern.count("|") + 1 for pattern in patterns) == len(names)


@pytest.mark.parametrize("text", ["http://x:1/metrics", "host", "host:port", ":1", "user@host:1", "host:70000"])
def test_a_target_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not host:port"):
        targets(f"a:1,{text}")


def test_targets_are_by_commas_or_blanks_and_each_asked_once() -> None:
    assert targets(" a:1, b:2 b:2,[::1]:3 ") == ["a:1", "b:2", "[::1]:3"]
    assert targets(None) == []
