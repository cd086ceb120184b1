"""What becomes of a job on a real broker: every outcome, read by a foreign client where it lands."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from aio_pika.abc import AbstractIncomingMessage

from penstock import (
    Dead,
    DeadReason,
    Done,
    Event,
    Expired,
    Handlers,
    Job,
    JobKind,
    Next,
    Reject,
    Retried,
    Retry,
    RetryPolicy,
    Snooze,
    Snoozed,
)
from penstock.delay import queue_key
from penstock.events import JobFinished, JobStarted
from penstock.testing.broker_node import BrokerInfo
from tests.support.brokers import manage
from tests.support.working import LEVELS, empty, foreign, put, take, take_all, working

GOOD = b'{"to": "ada@example.org"}'
ONCE = RetryPolicy(max_attempts=1)
SECOND = timedelta(seconds=1)


@dataclass
class Mail:
    """The arguments of email.send."""

    to: str


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, *(f"jobs.{name}" for name in ("email", "email.dead", "north", "south", "unrouted")), *LEVELS)


def handling(function: Callable[[Job[Mail]], Any], **options: Any) -> Handlers:
    """Handlers with *function*, made async, for email.send."""
    handlers = Handlers()

    async def send(job: Job[Mail]) -> object:
        return function(job)

    handlers.on(JobKind("email.send", Mail), **options)(send)
    return handlers


def failing(*errors: BaseException) -> Callable[[Job[Any]], int]:
    """A handler that raises each of *errors* on one attempt and then ends well with its attempt as result."""

    def run(job: Job[Any]) -> int:
        if job.attempt <= len(errors):
            raise errors[job.attempt - 1]
        return job.attempt

    return run


async def outcome_of(url: str, handlers: Handlers, body: bytes = GOOD, key: str = "email.send", **rest: Any) -> Any:
    """What becomes of the first delivery of a foreign job; the worker has ended by then."""
    options = {name: rest.pop(name) for name in ("binds", "max_body", "unknown_kind_grace") if name in rest}
    async with foreign(url) as channel, working(url, handlers, **options) as worker:
        await put(channel, key, body, **rest)
        [finished] = await worker.until(JobFinished)
    return finished.outcome


async def letter(url: str) -> AbstractIncomingMessage:
    """The next dead letter of jobs.email."""
    async with foreign(url) as channel:
        return await take(channel, "jobs.email.dead")


async def left(url: str) -> list[str | None]:
    """The ids of what waits in jobs.email and its dead letters."""
    async with foreign(url) as channel:
        return [m.message_id for queue in ("jobs.email", "jobs.email.dead") for m in await take_all(channel, queue)]


# --- done -------------------------------------------------------------------------------------------------------------


async def test_a_job_that_is_done_leaves_nothing_behind(url: str) -> None:
    assert await outcome_of(url, handling(lambda job: job.args.to)) == Done("ada@example.org")
    assert await left(url) == []


async def test_a_handler_sees_what_the_message_says(url: str) -> None:
    seen: list[Job[Mail]] = []
    await outcome_of(
        url,
        handling(seen.append),
        message_id="order-7",
        correlation_id="c-1",
        app_id="shop",
        headers={"penstock-attempt": 2, "penstock-copy": 4, "penstock-published": 1_700_000_000_000, "tenant": "north"},
    )
    [job] = seen
    assert (job.id, job.kind, job.args, job.queue) == ("order-7", "email.send", Mail("ada@example.org"), "jobs.email")
    assert (job.attempt, job.copy, job.published) == (2, 4, 1_700_000_000_000)
    assert (job.correlation_id, job.app_id, job.headers["tenant"]) == ("c-1", "shop", "north")
    assert not job.redelivered


async def test_a_job_without_an_id_gets_one_and_keeps_it_on_its_copies(url: str, broker: BrokerInfo) -> None:
    seen: list[str] = []

    def run(job: Job[Mail]) -> None:
        seen.append(job.id)
        if job.attempt == 1:
            raise OSError("again")

    async with working(url, handling(run)) as worker:
        form = {"routing_key": "email.send", "payload": GOOD.decode(), "payload_encoding": "string", "properties": {}}
        manage(broker, "POST", f"/api/exchanges/{url.rpartition('/')[2]}/jobs/publish", form)
        await worker.until(JobFinished, 2)
    assert len(seen) == 2
    assert len(set(seen)) == 1
    assert len(seen[0]) == 36


# --- later ------------------------------------------------------------------------------------------------------------


async def test_a_failed_job_comes_back_to_its_queue_after_its_delay_with_its_story(url: str) -> None:
    started = time.monotonic()
    outcome = await outcome_of(url, handling(failing(OSError("451 busy"))), message_id="order-7")
    assert isinstance(outcome, Retried)
    async with foreign(url) as channel:
        copy = await take(channel, "jobs.email")
    assert time.monotonic() - started >= 1.0
    assert (copy.exchange, copy.routing_key) == ("jobs.delay.00", queue_key(1, "jobs.email"))
    assert (copy.message_id, copy.type, copy.body, copy.delivery_mode) == ("order-7", "email.send", GOOD, 2)
    assert (copy.headers["penstock-attempt"], copy.headers["penstock-copy"]) == (2, 1)
    assert copy.headers["penstock-origin"] == "jobs email.send"
    [line] = copy.headers["penstock-history"]  # type: ignore[misc, str-unpack]  # a list of texts
    assert "attempt 1 retried after OSError: 451 busy on email@" in str(line)


async def test_a_job_is_retried_until_it_is_done(url: str) -> None:
    handlers = handling(failing(OSError("one"), OSError("two")), retry=RetryPolicy(first=SECOND, factor=1))
    async with foreign(url) as channel, working(url, handlers) as worker:
        await put(channel, "email.send", GOOD, message_id="order-7")
        finished = await worker.until(JobFinished, 3)
    assert [event.attempt for event in finished] == [1, 2, 3]
    assert finished[2].outcome == Done(3)
    assert await left(url) == []


async def test_a_handler_may_say_itself_when_to_try_again(url: str) -> None:
    outcome = await outcome_of(url, handling(failing(Retry("451", after=timedelta(seconds=2)))))
    assert isinstance(outcome, Retried)
    assert outcome.delay == timedelta(seconds=2)


async def test_a_snoozed_job_comes_back_at_the_same_attempt(url: str) -> None:
    outcome = await outcome_of(
        url, handling(failing(Snooze("closed", after=SECOND))), message_id="order-7", headers={"penstock-copy": 3}
    )
    assert outcome == Snoozed(SECOND, "closed")
    async with foreign(url) as channel:
        copy = await take(channel, "jobs.email")
    assert copy.message_id == "order-7"
    assert copy.headers["penstock-copy"] == 4
    assert copy.headers.get("penstock-attempt", 1) == 1


async def test_a_retry_is_seen_by_no_other_queue_of_its_kind(url: str) -> None:
    handlers = Handlers()

    @handlers.on(JobKind("sync.run", dict))
    async def run(job: Job[dict[str, Any]]) -> int:
        return failing(OSError("once"))(job)

    async with foreign(url) as channel, working(url, handlers, queue="north") as worker:
        await put(channel, "sync.run", b"{}", message_id="order-7")
        await worker.until(JobFinished, 2)
        [theirs] = await take_all(channel, "jobs.south")
    assert [event.attempt for event in worker.finished] == [1, 2]
    assert "penstock-attempt" not in theirs.headers


async def test_a_foreign_job_that_is_not_due_yet_waits_until_then(url: str) -> None:
    async with foreign(url) as channel, working(url, handling(lambda _: time.time() * 1000)) as worker:
        due = int(time.time() * 1000) + 5000
        await put(channel, "email.send", GOOD, headers={"penstock-due": due})
        await worker.until(JobFinished, 2)
        await _until_done(worker)
    done = worker.finished[-1].outcome
    assert isinstance(worker.finished[0].outcome, Snoozed)
    assert isinstance(done, Done)
    assert due <= done.result < due + 15_000  # type: ignore[operator]  # the handler's clock


async def _until_done(worker: Any) -> None:
    while not isinstance(worker.finished[-1].outcome, Done):
        await worker.until(JobFinished, len(worker.finished) + 1)


# --- dead -------------------------------------------------------------------------------------------------------------


async def test_a_rejected_job_is_a_dead_letter_with_its_whole_story(url: str) -> None:
    outcome = await outcome_of(
        url, handling(failing(Reject("550 no such mailbox"))), message_id="order-7", correlation_id="c-1"
    )
    assert isinstance(outcome, Dead)
    dead = await letter(url)
    headers = dead.headers
    assert (dead.exchange, dead.routing_key) == ("jobs.dead", "jobs.email")
    assert (dead.message_id, dead.type, dead.body, dead.correlation_id) == ("order-7", "email.send", GOOD, "c-1")
    assert (headers["penstock-queue"], headers["penstock-reason"]) == ("jobs.email", "rejected")
    assert (headers["penstock-error-type"], headers["penstock-error"]) == (
        "penstock.errors.Reject",
        "550 no such mailbox",
    )
    assert "in run" in str(headers["penstock-traceback"])
    assert str(headers["penstock-worker"]).startswith("email@")
    assert time.time() * 1000 - 60_000 < headers["penstock-died"] <= time.time() * 1000  # type: ignore[operator]
    assert dead.delivery_mode == 2


async def test_a_job_whose_attempts_are_used_up_is_dead_with_all_of_them_in_its_history(url: str) -> None:
    handlers = handling(failing(OSError("one"), OSError("two")), retry=RetryPolicy(max_attempts=2))
    async with foreign(url) as channel, working(url, handlers) as worker:
        await put(channel, "email.send", GOOD)
        await worker.until(JobFinished, 2)
    headers = (await letter(url)).headers
    assert (headers["penstock-reason"], headers["penstock-attempt"], headers["penstock-copy"]) == ("exhausted", 2, 2)
    lines = [str(line) for line in headers["penstock-history"]]  # type: ignore[union-attr]  # a list of texts
    assert ["one" in lines[0], "two" in lines[1], len(lines)] == [True, True, 2]


@pytest.mark.parametrize(
    ("body", "reason"),
    [(b'{"to": ', "decode"), (b"\xff", "decode"), (b"", "decode"), (b"[]", "decode"), (b'{"to": 5}', "schema")],
)
async def test_what_cannot_be_read_is_dead_at_once_byte_for_byte(url: str, body: bytes, reason: str) -> None:
    outcome = await outcome_of(url, handling(lambda _: None), body)
    assert isinstance(outcome, Dead)
    dead = await letter(url)
    assert (dead.body, dead.headers["penstock-reason"]) == (body, reason)


async def test_a_body_over_the_workers_limit_is_dead(url: str) -> None:
    body = json.dumps({"to": "x" * 200}).encode()
    outcome = await outcome_of(url, handling(lambda _: None), body, max_body=len(body) - 1)
    assert outcome.reason is DeadReason.TOO_LARGE
    assert (await letter(url)).body == body
    assert isinstance(await outcome_of(url, handling(lambda _: None), body, max_body=len(body)), Done)


async def test_a_kind_without_a_handler_is_put_off_for_its_grace_and_then_dead(url: str) -> None:
    started = time.monotonic()
    async with foreign(url) as channel, working(url, handling(lambda _: None), unknown_kind_grace=SECOND) as worker:
        await put(channel, "email.invite", GOOD, message_id="order-7")
        finished = await worker.until(JobFinished, 2)
    assert [type(event.outcome) for event in finished] == [Snoozed, Dead]
    assert time.monotonic() - started >= 1
    dead = await letter(url)
    assert (dead.message_id, dead.headers["penstock-reason"]) == ("order-7", "unknown-kind")
    assert "'email.invite'" in str(dead.headers["penstock-error"])


async def test_a_kind_that_its_queue_is_not_bound_to_is_dead_at_once(url: str) -> None:
    outcome = await outcome_of(url, handling(lambda _: None), type="report.render", binds=["email.*"])
    assert outcome.reason is DeadReason.UNBOUND_KIND
    assert (await letter(url)).headers["penstock-reason"] == "unbound-kind"


async def test_an_expired_job_is_not_run_and_leaves_nothing_behind(url: str) -> None:
    ran: list[Job[Mail]] = []
    expires = int(time.time() * 1000) - 1
    assert await outcome_of(url, handling(ran.append), headers={"penstock-expires": expires}) == Expired()
    assert ran == []
    assert await left(url) == []


# --- what a handler may do to its worker ------------------------------------------------------------------------------


class Odd(BaseException):
    """Neither an exception nor anything the runtime knows."""


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), Odd("odd"), StopIteration()],
    ids=lambda e: type(e).__name__,
)
async def test_nothing_that_a_handler_raises_ends_the_worker(url: str, error: BaseException) -> None:
    handlers = handling(failing(error), retry=ONCE)

    @handlers.on(JobKind("email.thread", Mail), retry=ONCE)
    def in_a_thread(_: Job[Mail]) -> None:
        raise error

    @handlers.on(JobKind("email.good", Mail))
    async def good(_: Job[Mail]) -> None: ...

    async with foreign(url) as channel, working(url, handlers) as worker:
        for key in ("email.send", "email.thread", "email.good"):
            await put(channel, key, GOOD)
        finished = await worker.until(JobFinished, 3)
    outcomes = {event.kind: event.outcome for event in finished}
    assert isinstance(outcomes["email.send"], Dead)
    assert isinstance(outcomes["email.thread"], Dead)
    assert outcomes["email.good"] == Done()


async def test_middleware_goes_round_the_handler_the_first_one_outermost_and_sees_what_it_raises(url: str) -> None:
    steps: list[str] = []

    def named(name: str) -> Callable[[Job[Any], Next], Any]:
        async def middleware(job: Job[Any], call: Next) -> object:
            steps.append(f"{name} in")
            try:
                return await call(job)
            except OSError:
                steps.append(f"{name} failed")
                raise
            finally:
                steps.append(f"{name} out")

        return middleware

    handlers = handling(failing(OSError("once")))
    async with (
        foreign(url) as channel,
        working(url, handlers, middleware=[named("first"), named("second")]) as worker,
    ):
        await put(channel, "email.send", GOOD)
        await worker.until(JobFinished, 1)
        assert steps == ["first in", "second in", "second failed", "second out", "first failed", "first out"]
        await worker.until(JobFinished, 2)
    assert steps[6:] == ["first in", "second in", "second out", "first out"]


async def test_a_run_is_told_as_events(url: str) -> None:
    async with foreign(url) as channel, working(url, handling(lambda _: "sent")) as worker:
        await put(
            channel, "email.send", GOOD, message_id="order-7", headers={"penstock-published": int(time.time() * 1000)}
        )
        await worker.until(JobFinished)
    told: list[Event] = [event for event in worker.events if isinstance(event, JobStarted | JobFinished)]
    [started, finished] = told
    assert isinstance(started, JobStarted)
    assert (started.id, started.kind, started.queue, started.attempt) == ("order-7", "email.send", "jobs.email", 1)
    assert started.wait is not None
    assert 0 <= started.wait < 60
    assert isinstance(finished, JobFinished)
    assert (finished.id, finished.outcome) == ("order-7", Done("sent"))
    assert 0 < finished.run < 60


async def test_a_subscriber_that_fails_stops_no_job(url: str) -> None:
    def broken(_: Event) -> None:
        raise RuntimeError("an onlooker")

    async with foreign(url) as channel, working(url, handling(lambda _: None)) as worker:
        worker.worker.events.subscribe(broken)
        await put(channel, "email.send", GOOD)
        [finished] = await worker.until(JobFinished)
    assert finished.outcome == Done()
