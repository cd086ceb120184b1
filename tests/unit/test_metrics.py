"""What events become as metrics, and that nothing from outside can make them grow."""

from __future__ import annotations

import os
import sys
import threading
import tracemalloc
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from penstock import Dead, DeadReason, Done, Duplicate, Event, Events, Failure, Retried, Snoozed, metrics
from penstock.events import (
    AcksSent,
    ConnectFailed,
    ConsumingEnded,
    ConsumingStarted,
    JobFinished,
    JobNotDone,
    JobsBegun,
    JobsDone,
    JobStarted,
    LinkBlocked,
    LinkClosed,
    LinkLost,
    LinkOpened,
    LoopTurned,
    OutboxBacklog,
    Published,
    Relayed,
    RelayParked,
    RelayPutOff,
    StoreAnswered,
    StoreAsked,
    StoreLost,
    StoreOpened,
    WorkerStarted,
)
from penstock.metrics.group import MOST_KINDS
from penstock.metrics.meters import MOST_SERIES, OTHER, counter
from penstock.outcome import WORDS, Outcome
from tests.support.scene import Scene

EMAIL = {"kind": "email.send", "queue": "jobs.email"}
STARTED = WorkerStarted("jobs.email", 16, ("email.send",))


def running(count: int, *waits: float, kind: str = "email.send") -> JobsBegun:
    return JobsBegun(kind, "jobs.email", count, [*waits])


def finished(outcome: Outcome, kind: str = "email.send", run: float = 0.2, attempt: int = 1) -> Event:
    if isinstance(outcome, Done):
        return JobsDone(kind, "jobs.email", [run], [3.0], [attempt], [])
    return JobNotDone("7", kind, "jobs.email", attempt, outcome, run, 3.0)


def failed(reason: DeadReason | None = None, error: str = "smtplib.SMTPException") -> Outcome:
    failure = Failure(error, "no")
    return Retried(timedelta(seconds=1), failure) if reason is None else Dead(reason, failure)


def test_a_job_that_is_done_is_one_job_one_attempt_and_three_times() -> None:
    scene = Scene("worker", STARTED, running(1, 0.5))
    assert scene.value("in_progress", **EMAIL) == 1
    assert scene.value("last_done_timestamp_seconds", **EMAIL) is None, "1970 would be a very long silence"
    scene.emit(running(0), finished(Done()))
    assert scene.value("in_progress", **EMAIL) == 0
    assert scene.value("jobs_total", outcome="done", **EMAIL) == 1
    assert scene.value("attempts_total", result="done", **EMAIL) == 1
    assert scene.value("attempts_total", result="failed", **EMAIL) == 0
    sums = [scene.value(f"{name}_seconds_sum", **EMAIL) for name in ("run", "wait", "end_to_end")]
    assert sums == [0.2, 0.5, 3.0]
    assert scene.value("job_attempts_bucket", le="1.0", **EMAIL) == 1
    assert scene.value("last_done_timestamp_seconds", **EMAIL)


def test_a_failed_attempt_and_a_failed_job_are_told_apart() -> None:
    scene = Scene("worker", STARTED)
    for outcome in (failed(), failed(), failed(DeadReason.EXHAUSTED)):
        scene.emit(finished(outcome, attempt=3))
    assert scene.value("attempts_total", result="failed", **EMAIL) == 3
    assert scene.value("jobs_total", outcome="dead", **EMAIL) == 1
    assert scene.value("attempt_failures_total", error="smtplib.SMTPException", **EMAIL) == 3
    assert scene.value("dead_letters_total", queue="jobs.email", reason="exhausted") == 1
    assert scene.value("end_to_end_seconds_count", **EMAIL) == 1, "a retried job has not ended"


def test_what_was_not_run_is_no_attempt() -> None:
    scene = Scene("worker", STARTED)
    scene.emit(
        finished(failed(DeadReason.SCHEMA, "penstock.SchemaError"), run=0.0), finished(Duplicate("done"), run=0.0)
    )
    assert scene.value("jobs_total", outcome="duplicate", **EMAIL) == 1
    assert scene.value("dead_letters_total", queue="jobs.email", reason="schema") == 1
    assert scene.value("attempts_total", result="failed", **EMAIL) == 0
    assert scene.value("run_seconds_count", **EMAIL) == 0
    assert scene.value("in_progress", **EMAIL) == 0


def test_a_snooze_is_an_attempt_put_off_and_no_failure() -> None:
    scene = Scene("worker", STARTED, finished(Snoozed(timedelta(seconds=5))))
    assert scene.value("attempts_total", result="put_off", **EMAIL) == 1
    assert scene.value("attempts_total", result="failed", **EMAIL) == 0


def test_what_can_be_foreseen_begins_at_0_so_that_the_first_failure_is_an_increase() -> None:
    scene = Scene("worker", STARTED)
    assert {scene.value("jobs_total", outcome=word, **EMAIL) for word in WORDS.values()} == {0}
    assert {scene.value("attempts_total", result=word, **EMAIL) for word in ("done", "failed", "put_off")} == {0}
    by_the_broker = {DeadReason.DELIVERY_LIMIT}
    assert scene.values("dead_letters_total", "reason") == {str(reason) for reason in set(DeadReason) - by_the_broker}
    for name in ("consumers_lost_total", "watchdog_reopened_total", "settle_failures_total", "consuming"):
        assert scene.value(name, queue="jobs.email") == 0, name
    assert scene.value("slots", queue="jobs.email") == 16


def test_kinds_from_outside_take_a_bounded_part_of_the_memory_and_of_the_page() -> None:
    scene = Scene("worker", STARTED)
    for number in range(1_000):
        scene.emit(running(1, 0.5, kind=f"email.k{number}"), finished(Done(), kind=f"email.k{number}"))
    size = len(scene.page())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100_000):
            kind = f"email.other{number}"
            scene.emit(finished(failed(DeadReason.UNKNOWN_KIND), kind=kind, run=0.0))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100_000
    assert len(scene.page()) < size * 1.2
    assert len(scene.values("jobs_total", "kind")) == 1 + MOST_KINDS + 1
    assert scene.value("jobs_total", kind=OTHER, queue="jobs.email", outcome="dead") == 100_000


def test_a_kind_that_has_a_handler_has_its_own_series_whatever_came_before_it() -> None:
    scene = Scene()
    for number in range(10_000):
        scene.emit(finished(Done(), kind=f"email.k{number}"))
    scene.emit(STARTED, finished(Done()))
    assert scene.value("jobs_total", outcome="done", **EMAIL) == 1


@pytest.mark.parametrize("kind", ["", "Email\n", "\ud800", 'a"} 1\n#', "x" * 300, "email send", "\x1b[2J"])
def test_what_is_no_kind_is_other(kind: str) -> None:
    scene = Scene("worker", STARTED, finished(Done(), kind=kind))
    assert scene.value("jobs_total", kind=OTHER, queue="jobs.email", outcome="done") == 1


def test_errors_and_queues_and_results_are_bounded_and_printable() -> None:
    scene = Scene("worker", STARTED)
    for number in range(5_000):
        scene.emit(
            finished(failed(error=f"Made{number}\n")),
            ConsumingEnded(f"jobs.q{number}", "gone"),
            Published("email.send", f"error{number}", 0.1),
            LinkOpened(f"x use{number}"),
        )
    scene.emit(finished(failed(error="late")))
    assert len(scene.values("attempt_failures_total", "error")) <= 101
    assert all(error.isprintable() for error in scene.values("attempt_failures_total", "error"))
    assert len(scene.values("consumers_lost_total", "queue")) <= 22
    assert len(scene.values("published_total", "result")) <= 31
    assert len(scene.values("broker_connected", "connection")) <= 31


def test_a_family_has_a_bounded_number_of_series_even_where_its_labels_multiply() -> None:
    family = counter("many_total", "Many.", "left", "right")
    for number in range(MOST_SERIES + 1_000):
        family.child(str(number), "x").value += 1
    assert len(family.series()) == MOST_SERIES + 1
    assert family.child(OTHER, OTHER).value == 1_000


def test_publishes_are_counted_by_kind_and_result() -> None:
    scene = Scene("publisher", Published("email.send", "confirmed", 0.004), Published("email.send", "unroutable", 0.1))
    assert scene.value("published_total", kind="email.send", result="confirmed") == 1
    assert scene.value("published_total", kind="email.send", result="unroutable") == 1
    assert scene.value("publish_seconds_bucket", kind="email.send", le="0.005") == 1


def test_a_connection_is_there_is_lost_and_is_back() -> None:
    scene = Scene("worker", LinkOpened("mailer@host:7 consume"))
    use = {"connection": "consume"}
    assert scene.value("broker_connected", **use) == 1
    assert scene.value("broker_reconnects_total", **use) == 0
    scene.emit(LinkBlocked("mailer@host:7 consume", "memory"))
    assert scene.value("broker_blocked", **use) == 1
    scene.emit(LinkLost("mailer@host:7 consume", "gone"), ConnectFailed("mailer@host:7 consume", "refused", 1, 0.2))
    assert (scene.value("broker_connected", **use), scene.value("broker_blocked", **use)) == (0, 0)
    scene.emit(LinkOpened("mailer@host:7 consume"))
    assert scene.value("broker_connected", **use) == 1
    counts = ("broker_reconnects_total", "broker_connections_lost_total", "connect_failures_total")
    assert [scene.value(name, **use) for name in counts] == [1, 1, 1]


def test_a_connection_closed_on_our_side_is_no_loss() -> None:
    scene = Scene("publisher", LinkOpened("orders@host:7 publish"), LinkClosed("orders@host:7 publish"))
    use = {"connection": "publish"}
    assert (scene.value("broker_connected", **use), scene.value("broker_connections_lost_total", **use)) == (0, 0)


def test_a_store_that_cannot_be_reached_is_told_apart_from_the_broker_and_shows_no_address() -> None:
    scene = Scene("worker", ConnectFailed("postgresql://db.internal/jobs", "refused", 1, 0.2))
    assert scene.value("connect_failures_total", connection="store") == 1
    assert "db.internal" not in scene.page()


def test_a_consumer_is_open_until_it_is_lost_or_the_store_goes_away() -> None:
    scene = Scene("worker", STARTED, ConsumingStarted("jobs.email", 24, "tag"))
    open_now = lambda: scene.value("consuming", queue="jobs.email")  # noqa: E731
    assert open_now() == 1
    scene.emit(ConsumingEnded("jobs.email", "cancelled"))
    assert (open_now(), scene.value("consumers_lost_total", queue="jobs.email")) == (0, 1)
    scene.emit(ConsumingStarted("jobs.email", 24, "tag"), StoreLost("sqlite:///x", "full"))
    assert open_now() == 0


def test_acks_are_counted_by_the_write_and_the_loops_lag_by_the_look() -> None:
    scene = Scene("worker", STARTED, AcksSent("jobs.email", 12), LoopTurned(0.003))
    assert scene.value("ack_batch_jobs_sum", queue="jobs.email") == 12
    assert scene.value("loop_lag_seconds_bucket", le="0.005") == 1
    assert scene.value("loop_lag_seconds_bucket", le="0.0025") == 0


def test_the_store_is_up_and_down_with_its_round_trips() -> None:
    scene = Scene("worker")
    assert scene.value("store_up") is None, "a worker without a store has none that could be down"
    scene.emit(StoreOpened("sqlite:///x"), StoreAsked("claim", 0.002, False), StoreAsked("claim", 2.0, True))
    assert scene.value("store_up") == 1
    assert scene.value("store_errors_total", operation="claim") == 1
    assert scene.value("store_seconds_count", operation="claim") == 2
    scene.emit(StoreLost("sqlite:///x", "gone"))
    assert (scene.value("store_up"), scene.value("store_losses_total")) == (0, 1)
    scene.emit(StoreAnswered("sqlite:///x", 3.0))
    assert scene.value("store_up") == 1


def test_a_relay_shows_what_it_did_and_what_waits() -> None:
    scene = Scene("relay", Relayed("email.send", 40, 0.02), RelayParked("email.send", "7", "unroutable"))
    scene.emit(RelayPutOff("email.send", 3, "nacked", 5.0), OutboxBacklog("sqlite:///x", 12, 31.5, 1))
    counts = [
        scene.value("outbox_relayed_total", kind="email.send", result=r) for r in ("published", "parked", "put_off")
    ]
    assert counts == [40, 1, 3]
    waits = [scene.value(f"outbox_{name}") for name in ("waiting_jobs", "oldest_seconds", "parked_jobs")]
    assert waits == [12, 31.5, 1]
    scene.emit(OutboxBacklog("sqlite:///x", 0, None, 0))
    assert scene.value("outbox_oldest_seconds") == 0


@pytest.mark.parametrize("role", list(metrics.ROLES))
def test_every_role_says_which_program_it_is_and_is_readable_as_openmetrics(role: str) -> None:
    from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

    scene = Scene(role, STARTED, finished(failed()), Published("a.b", "confirmed", 0.1), OutboxBacklog("x", 1, 1.0, 0))
    assert scene.values("build_info", "role") == {role}
    families = list(text_string_to_metric_families(openmetrics(scene.registry).decode()))
    assert len({family.name for family in families}) == len(families) >= 8


def test_no_label_carries_an_id() -> None:
    scene = Scene("worker", STARTED)
    scene.emit(JobNotDone("order-4711", "email.send", "jobs.email", 1, failed(DeadReason.CRASHED), 1.0))
    scene.emit(ConsumingStarted("jobs.email", 24, "mailer@host:4711#1"), LinkOpened("mailer@host:4711 consume"))
    assert "4711" not in scene.page()


def test_what_nobody_listens_to_need_not_be_made() -> None:
    events = Events()
    assert not events.wants(JobStarted)
    told: list[Event] = []
    events.subscribe(told.append, JobFinished, StoreLost)
    events.emit(LoopTurned(0.1))
    events.emit(finished(failed()))
    assert (events.wants(JobStarted), events.wants(StoreLost)) == (False, True)
    assert [type(event) for event in told] == [JobNotDone], "which is one of those that are finished"
    events.subscribe(told.append)
    assert events.wants(JobStarted)
    events.emit(LoopTurned(0.1))
    assert len(told) == 2


def test_several_publishers_share_one_registry_through_one_subscriber() -> None:
    registry, one, two = CollectorRegistry(), Events(), Events()
    counting = metrics.subscribe(one, registry)
    counting.watch(two)
    for events in (one, two):
        events.emit(Published("email.send", "confirmed", 0.1))
    found = registry.get_sample_value("penstock_published_total", {"kind": "email.send", "result": "confirmed"})
    assert found == 2
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.subscribe(two, registry)


def test_no_count_is_lost_between_threads_and_scrapes() -> None:
    scene = Scene("publisher")

    def emit() -> None:
        for _ in range(5_000):
            scene.emit(Published("email.send", "confirmed", 0.1))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=emit) for _ in range(4)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            count = scene.value("publish_seconds_count", kind="email.send")
            assert count is None or 0 <= count <= 20_000
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert scene.value("published_total", kind="email.send", result="confirmed") == 20_000


def test_a_forked_child_counts_from_nothing_even_when_the_lock_was_held() -> None:
    scene = Scene("publisher", Published("email.send", "confirmed", 0.1))
    counting = metrics.Metrics()
    with counting._lock:  # as another thread may, when the child is forked
        child = os.fork()
        if child == 0:
            counting(Published("email.send", "confirmed", 0.1))
            alone = scene.value("published_total", kind="email.send", result="confirmed") is None
            os._exit(0 if alone else 1)
    assert os.waitpid(child, 0)[1] == 0
