"""A new job as a message: where it goes, what it carries, and what is refused before anything is sent."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import JobKind, NewJob, SchemaError, TooLarge, UnknownKind, UsageError
from penstock.delay import MAX_SECONDS, kind_key
from penstock.publishing import Outgoing, Packer

KIND: JobKind[dict[str, Any]] = JobKind("email.send", dict)
NOW = datetime(2026, 8, 1, 12, 0, 0, 500_000, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
SECOND = timedelta(seconds=1)


class Still:
    """A clock that stands at NOW."""

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return NOW_MS


def packed(args: dict[str, Any] | None = None, **options: Any) -> Outgoing:
    """A job of KIND, packed by a publisher called orders that takes bodies up to 1,000 bytes."""
    return Packer(Still(), "orders", 1000, None).pack(NewJob(KIND, args or {}, **options))


def headers_of(**options: Any) -> dict[str, Any]:
    """The headers of such a job."""
    return packed(**options).message.headers


# --- what it carries --------------------------------------------------------------------------------------------------


def test_a_job_goes_to_the_exchange_jobs_by_its_kind_with_what_a_reader_needs() -> None:
    outgoing = packed({"to": "ada"}, correlation_id="c-1")
    message = outgoing.message
    assert (outgoing.exchange, outgoing.key) == ("jobs", "email.send")
    assert (message.type, message.body, message.content_type) == ("email.send", b'{"to":"ada"}', "application/json")
    assert (message.app_id, message.correlation_id, message.timestamp) == ("orders", "c-1", NOW_MS // 1000)
    assert message.headers == {"penstock-published": NOW_MS}


def test_the_receipt_names_the_id_on_the_message() -> None:
    outgoing = packed()
    assert outgoing.receipt.id == outgoing.message.message_id
    assert outgoing.receipt.kind == "email.send"
    assert uuid.UUID(outgoing.receipt.id).version == 7


def test_a_given_id_is_kept_as_it_is() -> None:
    assert packed(id="order 7 / é").message.message_id == "order 7 / é"


@pytest.mark.parametrize("job_id", ["", "x" * 256, "é" * 128])
def test_an_id_that_amqp_cannot_carry_is_refused(job_id: str) -> None:
    with pytest.raises(UsageError, match="1 to 255 bytes"):
        packed(id=job_id)


def test_an_id_of_255_bytes_is_taken() -> None:
    assert packed(id="x" * 255).message.message_id == "x" * 255


# --- when it is due ---------------------------------------------------------------------------------------------------


def seconds_of(**options: Any) -> int:
    """How long the cascade will hold such a job; 0 when it goes straight to jobs."""
    outgoing = packed(**options)
    if outgoing.exchange == "jobs":
        return 0
    assert outgoing.exchange == "jobs.delay"
    bits, _, kind = outgoing.key.partition("k.")
    assert kind == "email.send"
    return int(bits.replace(".", ""), 2)


@given(st.integers(1, MAX_SECONDS))
def test_a_delay_of_whole_seconds_is_in_the_key(seconds: int) -> None:
    assert packed(delay=timedelta(seconds=seconds)).key == kind_key(seconds, "email.send")


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [
        (timedelta(0), 0),
        (timedelta(microseconds=1), 1),
        (timedelta(seconds=1.4), 1),
        (timedelta(seconds=1.5), 2),
        (timedelta(seconds=2.4999), 2),
        (timedelta(seconds=MAX_SECONDS), MAX_SECONDS),
        (timedelta(seconds=MAX_SECONDS + 0.4), MAX_SECONDS),
    ],
)
def test_a_delay_is_rounded_to_the_nearest_second_and_at_least_one(delay: timedelta, seconds: int) -> None:
    assert seconds_of(delay=delay) == seconds


@pytest.mark.parametrize("delay", [timedelta(microseconds=-1), timedelta(days=-400), timedelta.min])
def test_a_negative_delay_is_refused(delay: timedelta) -> None:
    with pytest.raises(UsageError, match="cannot be negative"):
        packed(delay=delay)


@pytest.mark.parametrize("delay", [timedelta(seconds=MAX_SECONDS + 1), timedelta(days=195), timedelta.max])
def test_a_delay_beyond_194_days_is_refused(delay: timedelta) -> None:
    with pytest.raises(UsageError, match="194 days"):
        packed(delay=delay)


def test_an_instant_is_met_to_the_second_in_any_zone() -> None:
    due = NOW + timedelta(minutes=5)
    assert seconds_of(at=due) == 300
    assert seconds_of(at=due.astimezone(timezone(timedelta(hours=-9, minutes=-30)))) == 300


@pytest.mark.parametrize(
    "past", [NOW, NOW - SECOND, datetime(1970, 1, 1, tzinfo=UTC), datetime.min.replace(tzinfo=UTC)]
)
def test_an_instant_in_the_past_is_due_at_once(past: datetime) -> None:
    assert seconds_of(at=past) == 0


@pytest.mark.parametrize(
    "far", [NOW + timedelta(days=195), datetime(9999, 12, 31, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
def test_an_instant_beyond_194_days_is_refused_up_to_the_end_of_time(far: datetime) -> None:
    with pytest.raises(UsageError, match="194 days"):
        packed(at=far)


@pytest.mark.parametrize("option", ["at", "expires"])
def test_a_datetime_without_a_zone_is_refused_by_name(option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} is 2026-08-01T12:00:00, without a zone"):
        packed(**{option: datetime(2026, 8, 1, 12)})  # type: ignore[arg-type]  # one of two parameters of this type


def test_a_delay_and_an_instant_together_are_refused() -> None:
    with pytest.raises(UsageError, match="not both"):
        packed(delay=SECOND, at=NOW)


@pytest.mark.parametrize(
    "options", [{"delay": 5}, {"delay": "5s"}, {"at": 1_800_000_000}, {"expires": 60}, {"id": 7}, {"id": b"7"}]
)
def test_an_option_of_another_type_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        packed(**options)


# --- until when it may run --------------------------------------------------------------------------------------------


def test_an_expiry_is_an_instant_in_milliseconds() -> None:
    assert headers_of(expires=timedelta(seconds=1.5))["penstock-expires"] == NOW_MS + 1500
    assert headers_of(expires=NOW + timedelta(hours=1))["penstock-expires"] == NOW_MS + 3_600_000
    assert headers_of(expires=datetime.max.replace(tzinfo=UTC))["penstock-expires"] == 253_402_300_799_999


def test_an_expiry_beyond_all_time_is_the_end_of_time() -> None:
    assert headers_of(expires=timedelta.max)["penstock-expires"] == 253_402_300_799_999


@pytest.mark.parametrize("past", [timedelta(0), timedelta(seconds=-1), timedelta.min])
def test_an_expiry_before_it_was_asked_for_is_refused(past: timedelta) -> None:
    with pytest.raises(UsageError, match="would never run"):
        packed(expires=past)


def test_an_instant_of_expiry_in_the_past_is_left_to_the_worker_to_judge() -> None:
    assert headers_of(expires=NOW - SECOND)["penstock-expires"] == NOW_MS - 1000
    assert headers_of(expires=datetime.min.replace(tzinfo=UTC))["penstock-expires"] == 0


# --- what is refused --------------------------------------------------------------------------------------------------


def body_of(size: int) -> dict[str, str]:
    """Arguments whose JSON takes *size* bytes."""
    return {"x": "y" * (size - len('{"x":""}'))}


def test_a_body_at_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    assert len(packed(body_of(1000)).message.body) == 1000
    with pytest.raises(TooLarge, match="1001 bytes, over the limit of 1000"):
        packed(body_of(1001))


def test_a_kind_that_is_not_in_the_catalogue_is_refused() -> None:
    packer = Packer(Still(), None, 1000, {"email.send"})
    assert packer.pack(NewJob(KIND, {})).key == "email.send"
    with pytest.raises(UnknownKind, match=r"emial\.send"):
        packer.pack(NewJob(JobKind("emial.send", dict), {}))


def test_arguments_of_another_type_are_refused() -> None:
    with pytest.raises(SchemaError):
        packed(["ada"])  # type: ignore[arg-type]  # the mistake this is about


def test_a_body_is_sent_as_it_is_under_any_name() -> None:
    outgoing = Packer(Still(), None, 1000, None).pack_body("Not A Kind", b"\xff not json", NewJob(KIND, {}))
    assert (outgoing.key, outgoing.message.type, outgoing.message.body) == (
        "Not A Kind",
        "Not A Kind",
        b"\xff not json",
    )


def test_what_is_no_kind_cannot_be_delayed() -> None:
    with pytest.raises(UsageError, match="not a kind"):
        Packer(Still(), None, 1000, None).pack_body("a.#", b"{}", NewJob(KIND, {}, delay=SECOND))
