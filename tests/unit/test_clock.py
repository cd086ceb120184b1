"""Job ids are UUIDs of version 7: ordered by time, unique across threads and forks."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from penstock.clock import SystemClock, new_job_id

instants = st.integers(0, 2**48 - 1)


@given(instants)
def test_an_id_has_the_time_version_and_variant_of_rfc_9562(now_ms: int) -> None:
    made = uuid.UUID(new_job_id(now_ms))
    assert (made.int >> 80, made.version, made.variant) == (now_ms, 7, uuid.RFC_4122)


@given(instants)
def test_an_id_is_written_as_uuids_are(now_ms: int) -> None:
    made = new_job_id(now_ms)
    assert made == str(uuid.UUID(made))


@given(st.integers(0, 2**48 - 2))
def test_a_later_millisecond_sorts_later_as_text(now_ms: int) -> None:
    assert new_job_id(now_ms) < new_job_id(now_ms + 1)


def test_an_id_made_now_carries_the_present_time() -> None:
    before = SystemClock().now_ms()
    stamp = uuid.UUID(new_job_id()).int >> 80
    assert before <= stamp <= SystemClock().now_ms()


def test_every_random_bit_varies() -> None:
    made = [uuid.UUID(new_job_id(0)).int for _ in range(500)]
    ever, always = 0, ~0
    for value in made:
        ever, always = ever | value, always & value
    random_bits = ((1 << 12) - 1) << 64 | (1 << 62) - 1
    assert (ever & random_bits, always & random_bits) == (random_bits, 0)


def test_threads_never_make_the_same_id() -> None:
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: new_job_id(0), range(20_000)))
    assert len(set(made)) == len(made)


def test_forked_children_never_make_the_same_id() -> None:
    made = [line for _ in range(4) for line in in_a_fork(lambda: [new_job_id(0) for _ in range(50)])]
    assert len(made) == 200
    assert len(set(made)) == 200


def in_a_fork(make: Callable[[], list[str]]) -> list[str]:
    """What *make* returns in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "\n".join(make()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        lines = pipe.read().splitlines()
    os.waitpid(child, 0)
    return lines
