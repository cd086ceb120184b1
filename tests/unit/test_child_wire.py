"""Deliveries and outcomes cross the pipe to a child and back unchanged, whatever they hold."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.claims import Claim
from penstock.message import Delivery, Message
from penstock.outcome import (
    Cancelled,
    Dead,
    DeadReason,
    Done,
    Duplicate,
    Expired,
    Failure,
    Outcome,
    Released,
    Retried,
    Skipped,
    Snoozed,
)
from penstock.runners import wire

FAILURE = Failure("ValueError", "caf\u00e9 \u2192 gone", "Traceback …")

WHEN = datetime(2026, 8, 1, tzinfo=UTC)

numbers = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
values = st.recursive(
    st.none() | numbers | st.text() | st.binary() | st.decimals(places=2, allow_nan=False) | st.just(WHEN),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
    max_leaves=6,
)
texts = st.none() | st.text(max_size=20)
deliveries = st.builds(
    Delivery,
    st.builds(
        Message,
        st.binary(),
        st.dictionaries(st.text(), values, max_size=5),
        message_id=texts,
        type=texts,
        content_type=texts,
        timestamp=st.none() | st.integers(0, 2**63 - 1),
        app_id=texts,
        correlation_id=texts,
    ),
    st.text(),
    st.text(),
    st.text(),
    st.integers(1, 2**63 - 1),
    st.booleans(),
    st.integers(0, 100),
)


async def across(value: object) -> Any:
    """*value* as it arrives at the other end of the pipe."""
    reader = asyncio.StreamReader()
    reader.feed_data(wire.frame(value))
    reader.feed_eof()
    return await wire.read(reader)


async def outcome_across(outcome: Outcome) -> Outcome:
    """*outcome* as the worker gets it."""
    return wire.unpack_outcome(await across(wire.pack_outcome(outcome)))


tokens = st.integers(0, 2**63 - 1)
claims = st.builds(Claim, st.text(), st.text(), st.integers(0, 9), tokens, st.integers(1), st.none() | st.text())


@given(deliveries, st.none() | st.integers(1, 2**40), st.none() | claims)
def test_any_delivery_arrives_as_it_was(delivery: Delivery, memory: int | None, claim: Claim | None) -> None:
    arrived, cap, claimed, _ = wire.unpack_delivery(asyncio.run(across(wire.pack_delivery(delivery, memory, claim))))
    assert (cap, claimed) == (memory, claim)
    assert arrived.message == delivery.message
    for name in ("queue", "exchange", "key", "tag", "redelivered", "deliveries"):
        assert getattr(arrived, name) == getattr(delivery, name)


@pytest.mark.parametrize(
    "outcome",
    [
        Done(),
        Done({"rows": 3, "names": ["a", None]}),
        Retried(timedelta(seconds=1.5), FAILURE),
        Snoozed(timedelta(hours=8), "closed"),
        Snoozed(timedelta(seconds=1), "a twin runs", same_copy=True),
        Duplicate("done"),
        Skipped("another tick of schedule digest has not ended"),
        *(Dead(reason, FAILURE) for reason in DeadReason),
        Expired(),
        Cancelled(),
        Released(),
    ],
    ids=repr,
)
async def test_every_outcome_arrives_as_it_was(outcome: Outcome) -> None:
    assert await outcome_across(outcome) == outcome


class Odd:
    """A result that JSON does not know."""

    def __repr__(self) -> str:
        return "<odd>"


async def test_a_result_that_is_no_json_arrives_as_its_repr() -> None:
    assert await outcome_across(Done(Odd())) == Done("<odd>")


class Mute:
    """A result that cannot even say what it is."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def endless() -> list[Any]:
    """A list that holds itself."""
    ring: list[Any] = []
    ring.append(ring)
    return ring


@pytest.mark.parametrize(
    "result",
    [Mute(), "\ud800", b"\xff", endless(), {"nested": [Mute()]}, 2**70],
    ids=lambda value: type(value).__name__,
)
async def test_no_result_makes_a_finished_job_look_unfinished(result: object) -> None:
    assert isinstance(await outcome_across(Done(result)), Done)


async def test_numbers_that_json_lacks_become_null() -> None:
    assert await outcome_across(Done([float("nan"), float("inf")])) == Done([None, None])


async def test_a_pipe_that_ends_in_the_middle_is_no_frame() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(wire.frame({"ready": True})[:-1])
    reader.feed_eof()
    with pytest.raises(asyncio.IncompleteReadError):
        await wire.read(reader)
