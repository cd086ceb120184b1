"""What replaces a delivery: clean headers, the right way back, the story told, and never too large for a frame."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from penstock import copies
from penstock.brokers.frames import PublishEncoder
from penstock.brokers.properties import encode_content_header
from penstock.copies import MAX_HEADERS, MAX_HISTORY, Copy
from penstock.delay import kind_key, queue_key
from penstock.message import Delivery, Message
from penstock.outcome import Dead, DeadReason, Failure

NOW = 1_790_000_000_000
SECOND = timedelta(seconds=1)
FAILURE = Failure("ValueError", "no such order", "Traceback …")
WORKER = "mailer@host:7"

#: What a header may hold by the time it reaches us.
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
)
header_values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=20), v, max_size=4), max_leaves=8
)
penstock_names = st.sampled_from(
    ["attempt", "copy", "expires", "due", "published", "origin", "seq", "history", "queue", "reason", "traceback"]
).map("penstock-{}".format)
tables = st.dictionaries(penstock_names | st.text(max_size=30), header_values, max_size=8)


def delivery(headers: dict[str, Any] | None = None, *, key: str = "email.send", **properties: Any) -> Delivery:
    """A delivery of jobs.email with *headers* and *properties*."""
    message = Message(b'{"to": "ada"}', headers or {}, **({"message_id": "id-1", "type": "email.send"} | properties))
    return Delivery(message, "jobs.email", "jobs", key, 1)


def retried(headers: dict[str, Any] | None = None, delay: timedelta = SECOND, **more: Any) -> Copy:
    """The retry of such a delivery."""
    return copies.retry(delivery(headers, **more), delay, FAILURE, NOW, WORKER)


def dead(headers: dict[str, Any] | None = None, failure: Failure = FAILURE, **more: Any) -> Copy:
    """The dead letter of such a delivery."""
    return copies.dead_letter(delivery(headers, **more), Dead(DeadReason.REJECTED, failure), NOW, WORKER)


def every_copy(original: Delivery) -> list[Copy]:
    """Each copy that can be made of *original*."""
    return [
        copies.retry(original, SECOND, FAILURE, NOW, WORKER),
        copies.snooze(original, SECOND, NOW),
        copies.snooze(original, SECOND, NOW, same_copy=True),
        copies.dead_letter(original, Dead(DeadReason.EXHAUSTED, FAILURE), NOW, WORKER),
        copies.replay(original.message, "jobs.email"),
    ]


# --- where to ---------------------------------------------------------------------------------------------------------


def test_a_retry_goes_through_the_cascade_to_the_queue_it_failed_in() -> None:
    copy = retried(delay=timedelta(seconds=100))
    assert (copy.exchange, copy.key) == ("jobs.delay", queue_key(100, "jobs.email"))


def test_a_snooze_goes_the_same_way() -> None:
    copy = copies.snooze(delivery(), timedelta(hours=1), NOW)
    assert (copy.exchange, copy.key) == ("jobs.delay", queue_key(3600, "jobs.email"))


def test_a_dead_letter_goes_to_the_letters_of_its_queue() -> None:
    assert (dead().exchange, dead().key) == ("jobs.dead", "jobs.email")


def test_a_replay_enters_the_cascade_without_a_delay() -> None:
    copy = copies.replay(dead().message, "jobs.email")
    assert (copy.exchange, copy.key) == ("jobs.delay", queue_key(0, "jobs.email"))


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [
        (timedelta(days=-1), 1),
        (timedelta(0), 1),
        (timedelta(milliseconds=1499), 1),
        (timedelta(milliseconds=1500), 2),
        (timedelta(days=300), 2**24 - 1),
        (timedelta.max, 2**24 - 1),
    ],
)
def test_whatever_delay_a_handler_asks_for_the_cascade_can_hold(asked: timedelta, seconds: int) -> None:
    assert retried(delay=asked).key == queue_key(seconds, "jobs.email")


# --- what stays and what goes -----------------------------------------------------------------------------------------


def test_id_body_kind_and_correlation_are_those_of_the_original() -> None:
    original = delivery({"tenant": "north"}, correlation_id="c-1", app_id="orders", timestamp=1_789_999_999)
    for copy in every_copy(original):
        message = copy.message
        assert (message.message_id, message.body, message.type) == ("id-1", b'{"to": "ada"}', "email.send")
        assert (message.correlation_id, message.app_id, message.timestamp) == ("c-1", "orders", 1_789_999_999)
        assert message.headers["tenant"] == "north"


def test_what_only_the_broker_or_the_publisher_may_say_is_stripped() -> None:
    forged = {
        "x-death": [{"queue": "jobs.email", "count": 3}],
        "x-delivery-count": 5,
        "x-first-death-queue": "jobs.delay.00-1s",
        "x-anything": True,
        "CC": ["jobs.email", "jobs.reports"],
        "BCC": ["jobs.sync"],
        "penstock-seq": 17,
    }
    for copy in every_copy(delivery(forged | {"traceparent": "00-a-b-01"})):
        assert not forged.keys() & copy.message.headers.keys()
        assert copy.message.headers["traceparent"] == "00-a-b-01"


def test_a_copy_never_names_a_user_or_an_expiration() -> None:
    # Kept, the one is answered with 406 for ever and the other lets a delayed copy leave its level early.
    assert not {"user_id", "expiration", "priority"} & set(Message.__dataclass_fields__)


def test_the_original_is_left_as_it_was() -> None:
    original = delivery({"x-death": [], "penstock-attempt": 2, "penstock-history": ["one"]})
    every_copy(original)
    assert original.message.headers == {"x-death": [], "penstock-attempt": 2, "penstock-history": ["one"]}


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_a_retry_counts_attempt_and_copy_up() -> None:
    headers = retried({"penstock-attempt": 2, "penstock-copy": 5}).message.headers
    assert (headers["penstock-attempt"], headers["penstock-copy"]) == (3, 6)


def test_the_first_retry_of_a_foreign_job_is_attempt_2_copy_1() -> None:
    headers = retried().message.headers
    assert (headers["penstock-attempt"], headers["penstock-copy"]) == (2, 1)


def test_a_snooze_counts_the_copy_and_not_the_attempt() -> None:
    headers = copies.snooze(delivery({"penstock-attempt": 2, "penstock-copy": 5}), SECOND, NOW).message.headers
    assert (headers["penstock-attempt"], headers["penstock-copy"]) == (2, 6)


def test_a_wait_for_a_running_twin_keeps_the_copy_number() -> None:
    assert (
        copies.snooze(delivery({"penstock-copy": 5}), SECOND, NOW, same_copy=True).message.headers["penstock-copy"] == 5
    )


def test_a_replay_starts_again_at_attempt_1_with_the_next_copy_and_without_its_story() -> None:
    letter = dead({"penstock-attempt": 4, "penstock-copy": 3, "penstock-expires": 1, "penstock-due": 1}).message
    headers = copies.replay(letter, "jobs.email").message.headers
    assert headers["penstock-copy"] == 5
    assert not {"penstock-attempt", "penstock-expires", "penstock-due"} & headers.keys()
    assert not {f"penstock-{part}" for part in ("queue", "reason", "error", "error-type", "died", "worker")} & (
        headers.keys()
    )
    assert len(headers["penstock-history"]) == 1


@pytest.mark.parametrize("forged", ["NaN", -1, 2**63 - 1, True, 1.5, None, {"a": {}}, [1], b"2"])
def test_a_forged_number_is_clamped(forged: object) -> None:
    headers = retried({"penstock-attempt": forged, "penstock-copy": forged}).message.headers
    assert 2 <= headers["penstock-attempt"] <= 1_000_001
    assert 1 <= headers["penstock-copy"] <= 1_000_001


# --- the story --------------------------------------------------------------------------------------------------------


def test_every_copy_remembers_when_and_how_the_job_was_first_published() -> None:
    first = retried({"penstock-published": NOW - 5000}).message.headers
    assert (first["penstock-published"], first["penstock-origin"]) == (NOW - 5000, "jobs email.send")
    second = retried(first, key=queue_key(1, "jobs.email")).message.headers
    assert (second["penstock-published"], second["penstock-origin"]) == (NOW - 5000, "jobs email.send")


def test_without_a_header_the_timestamp_tells_the_first_publish_and_without_both_the_worker_does() -> None:
    assert retried(timestamp=1_789_999_999).message.headers["penstock-published"] == 1_789_999_999_000
    assert retried().message.headers["penstock-published"] == NOW


def test_a_job_published_in_the_future_is_published_now() -> None:
    assert retried({"penstock-published": NOW * 2}).message.headers["penstock-published"] == NOW
    assert retried(timestamp=2**40).message.headers["penstock-published"] == NOW


def test_a_job_without_a_type_gets_its_kind_from_the_first_routing_key() -> None:
    assert retried(type=None, key="email.send").message.type == "email.send"
    assert retried(type=None, key=kind_key(60, "email.send")).message.type == "email.send"
    assert retried(type=None, key="not a kind").message.type is None


def test_a_dead_letter_tells_where_why_when_and_who() -> None:
    headers = dead({"penstock-attempt": 4}).message.headers
    assert headers["penstock-queue"] == "jobs.email"
    assert headers["penstock-reason"] == "rejected"
    assert (headers["penstock-error-type"], headers["penstock-error"]) == ("ValueError", "no such order")
    assert (headers["penstock-traceback"], headers["penstock-died"]) == ("Traceback …", NOW)
    assert headers["penstock-worker"] == WORKER
    assert headers["penstock-attempt"] == 4


def test_the_history_gains_a_line_per_attempt_and_keeps_the_last_20() -> None:
    headers: dict[str, Any] = {}
    for _ in range(30):
        headers = retried(headers).message.headers
    history = headers["penstock-history"]
    assert len(history) == MAX_HISTORY == 20
    assert "attempt 30 retried after ValueError: no such order on mailer@host:7" in history[-1]
    assert history[-1].startswith("2026-09-21T")
    assert "attempt 11 " in history[0]


@pytest.mark.parametrize("forged", ["one", 7, {"a": 1}, [1, None, {"a": 1}], [["x"]]])
def test_a_forged_history_is_replaced_by_the_true_one(forged: object) -> None:
    assert len(retried({"penstock-history": forged}).message.headers["penstock-history"]) == 1


# --- size -------------------------------------------------------------------------------------------------------------


def bulk(count: int, size: int) -> dict[str, Any]:
    """A header table of *count* foreign headers of *size* bytes each."""
    return {f"h{n:04}": "x" * size for n in range(count)}


@given(tables)
@example(bulk(30, 1024))
@example(bulk(3000, 4))
@example({"é" * 100: "é" * 20_000})
@example({"nested": [{"a" * 255: ["x" * 1000] * 20}] * 3})
@example({"penstock-history": ["é" * 10_000] * 1000})
@example({"penstock-tenant": "x" * 40_000})
@example({"penstock-origin": "jobs " + "k" * 40_000})
def test_no_copys_headers_exceed_32_kib_on_the_wire(headers: dict[str, Any]) -> None:
    for copy in every_copy(delivery(headers)):
        properties_alone = len(encode_content_header(_without_headers(copy.message), 1))
        assert len(encode_content_header(copy.message, 1)) - properties_alone <= MAX_HEADERS


@pytest.mark.parametrize("size", range(MAX_HEADERS - 400, MAX_HEADERS, 7))
def test_the_limit_holds_to_the_byte(size: int) -> None:
    message = copies.replay(delivery({"h": "x" * size}).message, "jobs.email").message
    assert (
        len(encode_content_header(message, 1)) - len(encode_content_header(_without_headers(message), 1)) <= MAX_HEADERS
    )


@given(tables)
def test_every_copy_can_be_encoded(headers: dict[str, Any]) -> None:
    encoder = PublishEncoder(1, 131_072)
    for copy in every_copy(delivery(headers)):
        assert encoder.encode(copy.message, copy.exchange, copy.key, 1)


def test_the_headers_that_matter_survive_thirty_kib_of_foreign_ones() -> None:
    long = Failure("ValueError", "é" * 512, "x" * 8192)
    headers = dead(bulk(300, 100) | {"penstock-attempt": 3}, long).message.headers
    assert (headers["penstock-attempt"], headers["penstock-reason"]) == (3, "rejected")
    assert headers["penstock-error"] == "é" * 512
    assert headers["penstock-queue"] == "jobs.email"


def _without_headers(message: Message) -> Message:
    return Message(
        message.body, {}, message.message_id, message.type, timestamp=message.timestamp, app_id=message.app_id
    )
