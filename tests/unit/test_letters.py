"""Dead letters as values: read whatever they hold, restored from what the broker wrote, picked by a filter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import copies
from penstock import headers as h
from penstock.delay import kind_key, queue_key
from penstock.letters import DeadLetter, Filter
from penstock.message import Delivery, Message
from penstock.outcome import Dead, DeadReason, Failure

NOW = 1_760_000_000_000
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def delivery(message: Message, queue: str = "jobs.email.dead") -> Delivery:
    return Delivery(message, queue, "jobs.dead", "jobs.email", 1)


def death(queue: str, reason: str, exchange: str, key: str, **more: Any) -> dict[str, Any]:
    return {"queue": queue, "reason": reason, "exchange": exchange, "routing-keys": [key], "time": WHEN, **more}


def broker_made(*deaths: dict[str, Any], queue: str = "jobs.email.dead", **properties: Any) -> DeadLetter:
    return DeadLetter.of(delivery(Message(b"{}", {"x-death": list(deaths)}, **properties), queue))


def workers_letter() -> Message:
    original = Delivery(Message(b'{"a": 1}', message_id="order-7"), "jobs.email", "jobs", "email.send", 1)
    dead = Dead(DeadReason.EXHAUSTED, Failure("app.BadAddress", "no such box", "Traceback…"))
    return copies.dead_letter(original, dead, NOW, "mailer@host:1").message


def test_a_workers_letter_is_read_as_it_was_written() -> None:
    letter = DeadLetter.of(delivery(workers_letter()))
    assert (letter.id, letter.kind, letter.work_queue) == ("order-7", "email.send", "jobs.email")
    assert (letter.reason, letter.error_type, letter.error) == ("exhausted", "app.BadAddress", "no such box")
    assert (letter.died, letter.worker, letter.attempt, letter.copy) == (NOW, "mailer@host:1", 1, 1)
    assert "attempt 1 dead (exhausted)" in letter.history[0]


def test_a_letter_of_the_broker_gets_its_story_from_x_death() -> None:
    letter = broker_made(death("jobs.email", "delivery_limit", "jobs", "email.send"))
    assert (letter.kind, letter.reason, letter.work_queue) == ("email.send", "delivery-limit", "jobs.email")
    assert letter.died == int(WHEN.timestamp() * 1000)
    assert "gave it up" in letter.error
    assert letter.message.headers[h.ORIGIN] == "jobs email.send"


def test_a_job_that_was_delayed_keeps_the_kind_it_was_published_with() -> None:
    letter = broker_made(
        death("jobs.email", "delivery_limit", "jobs.deliver", kind_key(5, "email.send")),
        death("jobs.delay.00-1s", "expired", "jobs.delay.02", kind_key(5, "email.send")),
        death("jobs.delay.02-4s", "expired", "jobs.delay", kind_key(5, "email.send")),
    )
    assert (letter.kind, letter.reason) == ("email.send", "delivery-limit")
    assert letter.message.headers[h.ORIGIN] == "jobs.delay email.send"


def test_a_retry_that_the_broker_gave_up_keeps_its_own_type_and_origin() -> None:
    retry = death("jobs.email", "delivery_limit", "jobs.deliver", queue_key(1, "jobs.email"))
    message = Message(b"{}", {"x-death": [retry], h.ORIGIN: "jobs email.send", h.COPY: 2}, type="email.send")
    letter = DeadLetter.of(delivery(message))
    assert (letter.kind, letter.copy) == ("email.send", 2)
    assert letter.message.headers[h.ORIGIN] == "jobs email.send"


def test_a_replay_of_a_broker_made_letter_carries_kind_and_origin_and_nothing_of_the_brokers() -> None:
    letter = broker_made(death("jobs.email", "delivery_limit", "jobs", "email.send"), message_id="order-7")
    copy = copies.replay(letter.message, letter.work_queue)
    assert copy.key == queue_key(0, "jobs.email")
    assert (copy.message.type, copy.message.message_id) == ("email.send", "order-7")
    assert copy.message.headers == {h.ORIGIN: "jobs email.send", h.COPY: 1, h.REPLAYS: 1}


def test_a_story_that_a_producer_forged_does_not_survive_the_brokers_own() -> None:
    forged = {h.REASON: "rejected", h.QUEUE: "jobs.bank", h.ERROR: "forged", h.TRACEBACK: "forged"}
    deaths = [death("jobs.email", "delivery_limit", "jobs", "email.send")]
    letter = DeadLetter.of(delivery(Message(b"{}", {**forged, "x-death": deaths})))
    assert (letter.reason, letter.work_queue) == ("delivery-limit", "jobs.email")
    assert letter.message.headers[h.QUEUE] == "jobs.email"
    assert "forged" not in letter.message.headers.values()


def test_an_unrouted_message_says_so_and_died_nowhere() -> None:
    key = kind_key(1, "emial.send")
    letter = broker_made(death("jobs.delay.00-1s", "expired", "jobs.delay", key), queue="jobs.unrouted")
    assert (letter.kind, letter.reason, letter.work_queue) == ("emial.send", "unrouted", "")


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.binary(max_size=20) | st.just(WHEN),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from([h.REASON, h.ERROR, h.DIED, h.HISTORY, h.ATTEMPT, h.COPY, h.ORIGIN, "x-death", "other"])
_DEATHS = st.lists(
    st.dictionaries(st.sampled_from(["queue", "reason", "exchange", "routing-keys", "time"]), _JUNK), max_size=3
)


@given(st.dictionaries(_NAMES, _JUNK), _DEATHS | st.none(), st.text(max_size=30) | st.none())
def test_no_letter_is_unreadable(headers: dict[str, Any], deaths: list[Any] | None, kind: str | None) -> None:
    more = {} if deaths is None else {"x-death": deaths}
    letter = DeadLetter.of(delivery(Message(b"\xff", {**headers, **more}, type=kind)))
    assert letter.work_queue == "jobs.email"
    assert letter.attempt >= 1
    assert Filter(kind="email.#", older_than=timedelta(days=1)).takes(letter, NOW) in (True, False)


@pytest.mark.parametrize(
    ("where", "taken"),
    [
        (Filter(), True),
        (Filter(kind="email.*"), True),
        (Filter(kind="report.*"), False),
        (Filter(reason="exhausted"), True),
        (Filter(reason="rejected"), False),
        (Filter(error_type="app.BadAddress"), True),
        (Filter(error_type="BadAddress"), True),
        (Filter(error_type="Address"), False),
        (Filter(ids=frozenset(["order-7"])), True),
        (Filter(ids=frozenset(["order-8"])), False),
        (Filter(older_than=timedelta(hours=1)), True),
        (Filter(older_than=timedelta(hours=3)), False),
        (Filter(kind="email.*", reason="rejected"), False),
    ],
)
def test_a_filter_takes_what_fits_in_every_respect(where: Filter, taken: bool) -> None:
    letter = DeadLetter.of(delivery(workers_letter()))
    assert where.takes(letter, NOW + 2 * 3_600_000) is taken


def test_a_letter_that_does_not_say_when_it_died_is_never_old_enough() -> None:
    letter = DeadLetter.of(delivery(Message(b"{}")))
    assert not Filter(older_than=timedelta(0)).takes(letter, NOW)
