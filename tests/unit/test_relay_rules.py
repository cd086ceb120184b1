"""What a relay decides, without servers: rows as messages, batches by their answers, kinds that rest."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from penstock import ConnectionLost, Nacked, TooLarge, Unroutable, UsageError
from penstock.delay import kind_key
from penstock.errors import PenstockError
from penstock.publishing import Outgoing, Packer
from penstock.relay_rules import Rests, Sorted, packed, sort
from penstock.relaying import Waiting
from penstock.testing.clock import ManualClock

CLOCK = ManualClock()
NOW = CLOCK.now_ms()
PACKER = Packer(CLOCK, None, 1000, None)


def row(number: int = 1, **facts: Any) -> Waiting:
    """A row of email.send."""
    return Waiting(number, **({"kind": "email.send", "job_id": f"job-{number}", "body": b"{}"} | facts))


def sent(waiting: Waiting) -> Outgoing:
    """The message for a row that can be one."""
    outgoing = packed(waiting, PACKER)
    assert isinstance(outgoing, Outgoing)
    return outgoing


def test_a_row_is_published_under_its_own_id_and_with_all_it_says() -> None:
    outgoing = sent(row(job_id="order-7", body=b'{"n":1}', correlation_id="c", app_id="shop", expires=NOW + 5))
    message = outgoing.message
    assert (outgoing.exchange, outgoing.key, message.type) == ("jobs", "email.send", "email.send")
    assert (message.message_id, message.body, message.correlation_id) == ("order-7", b'{"n":1}', "c")
    assert (message.app_id, message.headers["penstock-expires"]) == ("shop", NOW + 5)


@pytest.mark.parametrize(("left", "seconds"), [(1, 1), (1_499, 1), (1_500, 2), (3_600_000, 3600)])
def test_what_is_left_of_a_delay_is_waited_for_in_the_cascade(left: int, seconds: int) -> None:
    outgoing = sent(row(due=NOW + left))
    assert (outgoing.exchange, outgoing.key) == ("jobs.delay", kind_key(seconds, "email.send"))


@pytest.mark.parametrize("due", [0, NOW - 1, NOW])
def test_what_fell_due_while_it_waited_goes_out_at_once(due: int) -> None:
    assert sent(row(due=due)).exchange == "jobs"


@pytest.mark.parametrize(
    ("facts", "error"),
    [
        ({"body": b"x" * 1001}, TooLarge),
        ({"job_id": ""}, UsageError),
        ({"job_id": "x" * 256}, UsageError),
        ({"due": 2**62}, UsageError),
        ({"expires": -(2**62)}, UsageError),
        ({"due": NOW + timedelta(days=200) // timedelta(milliseconds=1)}, UsageError),
        ({"kind": "No Kind", "due": NOW + 5000}, UsageError),
    ],
)
def test_a_row_that_cannot_be_a_message_says_why(facts: dict[str, Any], error: type[PenstockError]) -> None:
    assert isinstance(packed(row(**facts), PACKER), error)


def test_a_batch_is_sorted_by_whose_fault_it_is() -> None:
    rows = [row(number) for number in range(5)]
    answers = [None, Unroutable("nobody"), Nacked("full"), None, ConnectionLost("gone")]
    assert sort(rows, answers) == Sorted([0, 3], [(rows[1], "Unroutable: nobody")], left=2, last="gone")


def test_a_kind_that_the_broker_does_not_take_rests_longer_each_time_up_to_half_a_minute() -> None:
    rests, now, waits = Rests(), 100.0, []
    for _ in range(9):
        waits.append(wait := rests.failed("email.send", now))
        assert rests.failing("email.send")
        assert rests.resting("email.send", now + wait - 0.01)
        now += wait
        assert not rests.resting("email.send", now)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    rests.worked("email.send")
    assert not rests.failing("email.send")
    assert rests.failed("email.send", now) == 0.5


def test_a_kind_of_which_some_were_taken_or_that_another_relay_has_rests_briefly_and_has_not_failed() -> None:
    rests = Rests()
    rests.failed("email.send", 0.0)
    assert rests.put_off("email.send", 10.0) == 0.5
    assert not rests.failing("email.send")
    rests.elsewhere("email.other", 10.0)
    assert rests.resting("email.other", 10.0)
    assert not rests.resting("email.other", 10.2)
    assert not rests.resting("unheard.of", 0.0)
