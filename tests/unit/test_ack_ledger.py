"""The ack ledger never names an unfinished or answered tag, and sends few frames."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from penstock.brokers.acks import AckLedger


class Channel:
    """What RabbitMQ knows of one channel's deliveries; an ack it cannot accept is a 406."""

    def __init__(self) -> None:
        self.outstanding: set[int] = set()
        self.acked: list[int] = []

    def ack(self, tag: int, multiple: bool) -> None:
        assert tag in self.outstanding, f"406: unknown delivery tag {tag}"
        covered = sorted(known for known in self.outstanding if known <= tag) if multiple else [tag]
        self.outstanding.difference_update(covered)
        self.acked.extend(covered)


def delivered(count: int) -> AckLedger:
    ledger = AckLedger()
    for tag in range(1, count + 1):
        ledger.delivered(tag)
    return ledger


def finish(ledger: AckLedger, *tags: int) -> list[bool]:
    return [ledger.finish(tag) for tag in tags]


def test_one_finished_delivery_is_one_single_ack() -> None:
    ledger = delivered(3)
    finish(ledger, 1)
    assert ledger.collect() == [(1, False)]


def test_a_finished_prefix_is_one_multiple_ack_whatever_the_order_of_finishing() -> None:
    ledger = delivered(5)
    finish(ledger, 3, 1, 2)
    assert ledger.collect() == [(3, True)]


def test_what_is_finished_beyond_a_gap_is_acked_singly() -> None:
    ledger = delivered(6)
    finish(ledger, 1, 2, 4, 6)
    assert ledger.collect() == [(2, True), (4, False), (6, False)]


def test_the_multiple_ack_names_the_highest_tag_that_is_still_outstanding() -> None:
    ledger = delivered(5)
    finish(ledger, 2, 3)
    assert ledger.collect() == [(2, False), (3, False)]
    finish(ledger, 1)
    assert ledger.collect() == [(1, False)]
    finish(ledger, 4, 5)
    assert ledger.collect() == [(5, True)]


def test_a_prefix_that_ends_in_answered_tags_names_the_last_one_finished_now() -> None:
    ledger = delivered(4)
    finish(ledger, 3, 4)
    ledger.collect()
    finish(ledger, 1, 2)
    assert ledger.collect() == [(2, True)]


def test_nothing_finished_is_nothing_sent() -> None:
    ledger = delivered(3)
    assert ledger.collect() == []
    finish(ledger, 1)
    ledger.collect()
    assert ledger.collect() == []


def test_a_delivery_is_answered_once() -> None:
    ledger = delivered(3)
    assert finish(ledger, 1, 1) == [True, False]
    ledger.collect()
    assert finish(ledger, 1, 4, 0) == [False, False, False]
    assert [ledger.answer(2), ledger.answer(2), ledger.finish(2)] == [True, False, False]


def test_tags_the_broker_skipped_are_not_acked() -> None:
    ledger = AckLedger()
    ledger.delivered(3)
    assert finish(ledger, 1, 2, 3) == [False, False, True]
    assert ledger.collect() == [(3, False)]


STEPS = st.lists(
    st.tuples(st.sampled_from(["deliver", "deliver", "finish", "finish", "answer", "collect"]), st.integers(0, 12)),
    max_size=120,
)


@given(STEPS)
def test_every_finished_delivery_is_acked_exactly_once_and_no_other(steps: list[tuple[str, int]]) -> None:
    ledger, channel = AckLedger(), Channel()
    last, finished, answered = 0, set[int](), set[int]()
    for step, back in steps:
        tag = max(last - back, 0)
        fresh = tag > 0 and tag not in finished | answered
        if step == "deliver":
            last += 1
            ledger.delivered(last)
            channel.outstanding.add(last)
        elif step == "finish":
            assert ledger.finish(tag) is fresh
            finished |= {tag} if fresh else set()
        elif step == "answer":
            assert ledger.answer(tag) is fresh
            answered |= {tag} if fresh else set()
            channel.outstanding.discard(tag) if fresh else None
        else:
            collect(ledger, channel, finished)
    collect(ledger, channel, finished)
    assert sorted(channel.acked) == sorted(finished)


def collect(ledger: AckLedger, channel: Channel, finished: set[int]) -> None:
    for tag, multiple in ledger.collect():
        channel.ack(tag, multiple)
    assert set(channel.acked) == finished
