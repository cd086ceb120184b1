"""What a worker's log says, line by line."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
import structlog

from penstock import Dead, DeadReason, Done, Event, Events, Failure, Retried, logs
from penstock.event_log import subscribe
from penstock.events import ConnectFailed, ConsumingStarted, JobFinished, JobNotDone, JobsDone, LinkOpened
from penstock.outcome import Outcome
from penstock.settings import Settings
from tests.support.waiting import eventually

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Log to memory; call it for the JSON lines so far."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    handlers, level = logging.root.handlers, logging.root.level
    logs.setup(Settings.load())
    yield lambda: [orjson.loads(line) for line in stream.getvalue().splitlines()]
    logging.root.handlers = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


def finished(outcome: Outcome, job_id: str = "order-7") -> JobFinished:
    kind = JobFinished if isinstance(outcome, Done) else JobNotDone
    return kind(job_id, "email.send", "jobs.email", 2, outcome, 0.0125)


def told(lines: Lines, *events: Event) -> list[dict[str, Any]]:
    bus = Events()
    subscribe(bus)
    for event in events:
        bus.emit(event)
    return lines()


def test_a_retry_is_one_line_with_fields(lines: Lines) -> None:
    failure = Failure("smtplib.SMTPServerDisconnected", "gone", "a traceback")
    [line] = told(lines, finished(Retried(timedelta(seconds=10), failure)))
    expected = {
        "event": "job retried",
        "level": "info",
        "job_id": "order-7",
        "kind": "email.send",
        "queue": "jobs.email",
        "attempt": 2,
        "outcome": "retried",
        "duration_ms": 12.5,
        "retry_in": 10.0,
        "error": "smtplib.SMTPServerDisconnected: gone",
    }
    assert {name: line[name] for name in expected} == expected


def test_a_dead_letter_says_why(lines: Lines) -> None:
    [line] = told(lines, finished(Dead(DeadReason.EXHAUSTED, Failure("ValueError", ""))))
    assert (line["event"], line["reason"], line["error"]) == ("job dead", "exhausted", "ValueError")


def test_done_jobs_are_told_at_debug_alone(lines: Lines) -> None:
    assert told(lines, finished(Done())) == []
    logging.root.setLevel(logging.DEBUG)
    assert [line["event"] for line in told(lines, finished(Done()))] == ["job done"]


def test_ready_is_told_when_a_queue_is_consumed_and_not_before(lines: Lines) -> None:
    opened = told(lines, LinkOpened("mailer@host:1 consume"))
    assert [line["event"] for line in opened] == ["connected"]
    assert told(lines, ConsumingStarted("jobs.email", 24, "mailer@host:1#1"))[-1]["event"] == "ready"


def test_every_try_to_connect_is_a_line_with_the_wait_before_the_next(lines: Lines) -> None:
    [line] = told(lines, ConnectFailed("mailer", "connection refused", 3, 1.234))
    assert (line["level"], line["attempt"], line["again_in"]) == ("warning", 3, 1.2)


def test_what_errors_quote_is_cut_and_harmless(lines: Lines) -> None:
    failure = Failure("ValueError", "\x1b[2J\r\nlevel=critical \ud800" + "x" * 5000)
    [line] = told(lines, finished(Retried(timedelta(seconds=1), failure), job_id="id\n{}"))
    assert line["job_id"] == "id\\n{}"
    assert line["error"].startswith("ValueError: \\x1b[2J\\r\\nlevel=critical \\ud800x")
    assert len(line["error"]) < 400


async def test_what_was_done_is_summed_up_once_a_period(lines: Lines) -> None:
    bus = Events()
    log = subscribe(bus, every=0.05)
    for _ in range(3):
        bus.emit(JobsDone("email.send", "jobs.email", [0.0125], [], [1], []))
    [line] = await eventually(lines)
    assert (line["event"], line["done"], line["run_s"]) == ("summary", 3, 0.038)
    log.close()
    assert len(lines()) == 1, "nothing happened since"
    bus.emit(JobsDone("email.send", "jobs.email", [0.0125], [], [1], []))
    log.close()
    assert lines()[-1]["done"] == 1


def test_other_peoples_loggers_come_out_in_the_same_form(lines: Lines) -> None:
    logging.getLogger("services.mailer").warning("sent %d\n", 3)
    logging.getLogger("pika.connection").error("socket failed")
    logging.getLogger("asyncio").warning("socket.send() raised exception.")
    [line] = lines()
    assert (line["logger"], line["level"], line["event"]) == ("services.mailer", "warning", "sent 3\\n")


def test_a_traceback_keeps_its_lines_and_loses_its_escapes(lines: Lines) -> None:
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        logging.getLogger("services.mailer").exception("failed")
    [line] = lines()
    assert "Traceback (most recent call last):\n" in line["exception"]
    assert line["exception"].endswith("ValueError: \\x1b[2J")
