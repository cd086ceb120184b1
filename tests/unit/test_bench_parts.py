"""What the benchmark's instruments hold: the stopwatch, the job of 200 bytes, copies with fresh ids, profile tables."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter

import pika

from penstock.clock import new_job_id
from tests.bench.cells import ACCOUNTS
from tests.bench.entrants.common import BODY_SIZE, WARM_UP, Latencies, Tally, arguments, compact, in_threads
from tests.bench.entrants.crowd import Count, together
from tests.bench.entrants.penstock_stores import account_of
from tests.bench.profiling import table
from tests.bench.queues import Pattern


def test_a_job_is_two_hundred_bytes() -> None:
    """As compact JSON."""
    assert len(compact(arguments())) == BODY_SIZE


def test_a_tally_counts_from_any_thread_and_tells_of_the_last_job_once() -> None:
    """No count is lost between threads."""
    lasts: list[None] = []
    tally = Tally(400, lambda: lasts.append(None))

    def work() -> None:
        for _ in range(100):
            tally.tick()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert len(lasts) == 1
    assert tally.figures()["rate"] > 0


def test_latencies_leave_the_warm_up_out() -> None:
    """However slow it was."""
    latencies = Latencies(WARM_UP + 100, lambda: None)
    for _ in range(WARM_UP):
        latencies.arrived(time.perf_counter() - 10)
    for _ in range(100):
        latencies.arrived(time.perf_counter())
    figures = latencies.figures()
    assert figures["p50_ms"] <= figures["p99_ms"] < 1000


def test_threads_publish_what_is_counted_and_one_each_to_open_their_connection() -> None:
    """The warm-up publish of each thread is part of the messages, not of the rate."""
    calls: list[None] = []
    in_threads(4, 40, lambda: calls.append(None))
    assert len(calls) == 40


def test_processes_of_one_role_are_counted_together() -> None:
    """None is lost between them, and the first and the last tenth are not timed."""

    def play(count: Count) -> None:
        for _ in range(500):
            count.tick()
        asyncio.run(asyncio.wait_for(count.complete(), 10))

    assert together(3, 1500, play)["rate"] > 0


def test_jobs_are_spread_over_the_accounts() -> None:
    """No account gets much more than its share."""
    hits = Counter(account_of(new_job_id()) for _ in range(20 * ACCOUNTS))
    assert len(hits) == ACCOUNTS
    assert max(hits.values()) < 60


def test_a_copy_has_a_fresh_id_wherever_the_old_one_stood() -> None:
    """In the properties, in headers at any depth, and in the body."""
    properties = pika.BasicProperties(
        correlation_id="old-id", headers={"id": "old-id", "deep": {"root": ["old-id", 1]}, "task": "note"}
    )
    copy, body = Pattern.of(properties, b'{"task_id":"old-id"}').copy()
    fresh = copy.correlation_id
    assert fresh != "old-id"
    assert copy.headers == {"id": fresh, "deep": {"root": [fresh, 1]}, "task": "note"}
    assert body == b'{"task_id":"%b"}' % fresh.encode()
    assert copy.delivery_mode == 2


def test_two_copies_have_different_ids() -> None:
    """A worker that knows ids must not take them for one job."""
    pattern = Pattern.of(pika.BasicProperties(message_id="old-id"), b"{}")
    assert pattern.copy()[0].message_id != pattern.copy()[0].message_id


def test_a_message_without_an_id_is_copied_as_it_is() -> None:
    """There is nothing to tell copies apart by."""
    properties = pika.BasicProperties(content_type="application/json")
    assert Pattern.of(properties, b"{}").copy() == (properties, b"{}")


def test_a_profile_is_summed_by_function_without_what_importing_cost() -> None:
    """Recursion counts once in the total."""
    rows = list(
        table(["a (m.py:1);b (m.py:2) 3", "a (m.py:9);b (m.py:3);b (m.py:4) 1", "<frozen importlib>;c (m.py:1) 96"])
    )
    assert rows[1:] == ["100.0%  100.0%  b (m.py)"]
