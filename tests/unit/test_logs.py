"""Log lines of a worker's process: whose job they belong to, and what they never say."""

from __future__ import annotations

import asyncio
import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import structlog

from penstock import Handlers, Job, JobKind, logs
from penstock.log_fields import MAX_FIELDS, MAX_ITEMS, MAX_LINES, MAX_TEXT
from penstock.redaction import REDACTED
from penstock.settings import LogFormat, Settings
from penstock.testing import WorkerTest

Lines = Callable[[], list[dict[str, Any]]]


@dataclass
class Note:
    """A job's arguments."""

    text: str


LOOP = JobKind("email.loop", Note)
THREAD = JobKind("email.thread", Note)


@contextmanager
def capture(monkeypatch: pytest.MonkeyPatch, form: LogFormat) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    handlers, level = logging.root.handlers, logging.root.level
    logs.setup(Settings.load(log_format=form))
    yield stream
    logging.root.handlers = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Log to memory; call it for the JSON lines so far."""
    with capture(monkeypatch, LogFormat.JSON) as stream:
        yield lambda: [orjson.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Log to memory as for a person."""
    with capture(monkeypatch, LogFormat.CONSOLE) as stream:
        yield stream


def logged(lines: Lines, **fields: Any) -> dict[str, Any]:
    structlog.stdlib.get_logger("services.mailer").info("said", **fields)
    return lines()[-1]


async def test_a_handlers_own_lines_say_for_which_job(lines: Lines) -> None:
    handlers = Handlers()

    @handlers.on(LOOP)
    async def in_the_loop(job: Job[Note]) -> None:
        structlog.stdlib.get_logger("services.mailer").info("sending", to=job.args.text)

    @handlers.on(THREAD)
    def in_a_thread(job: Job[Note]) -> None:
        logging.getLogger("services.mailer").warning("sending to %s", job.args.text)

    async with WorkerTest(handlers, queue="email") as t:
        ids = [(await t.publish(kind, Note("ada"))).id for kind in (LOOP, THREAD)]
        await t.settled()
        logging.getLogger("services.mailer").info("between jobs")
    told = {line["event"]: line for line in lines()}
    loop, thread = told["sending"], told["sending to ada"]
    assert [(line["job_id"], line["kind"], line["queue"], line["attempt"]) for line in (loop, thread)] == [
        (ids[0], "email.loop", "jobs.email", 1),
        (ids[1], "email.thread", "jobs.email", 1),
    ]
    assert "job_id" not in told["between jobs"]


async def test_what_one_handler_binds_is_not_in_the_lines_of_the_next_job(lines: Lines) -> None:
    handlers, gate = Handlers(), asyncio.Event()

    @handlers.on(LOOP)
    async def bind(job: Job[Note]) -> None:
        await gate.wait()  # so that the next job waits here for its slot, and is started by the end of this one
        structlog.contextvars.bind_contextvars(**{job.args.text: True})
        structlog.stdlib.get_logger("services.mailer").info("bound", which=job.args.text)

    async with WorkerTest(handlers, queue="email", slots=1) as t:
        for number in range(6):
            await t.publish(LOOP, Note(f"of{number}"))
        gate.set()
        await t.settled()
    bound = [line for line in lines() if line["event"] == "bound"]
    assert [sorted(name for name in line if name.startswith("of")) for line in bound] == [[f"of{n}"] for n in range(6)]


def test_a_field_of_the_same_name_wins_over_the_jobs(lines: Lines) -> None:
    from penstock.running import JOB

    token = JOB.set(Job("order-7", "email.send", None, 1, 0, "jobs.email", None, None, None, False, {}))
    try:
        line = logged(lines, kind="of my own")
    finally:
        JOB.reset(token)
    assert (line["job_id"], line["kind"]) == ("order-7", "of my own")


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "db_password",
        "Passwd",
        "passphrase",
        "client_secret",
        "accessToken",
        "Authorization",
        "proxy-authorization",
        "Set-Cookie",
        "x-api-key",
        "APIKEY",
        "private_key",
        "aws_access_key_id",
        "credentials",
    ],
)
def test_what_a_name_calls_secret_is_not_written_however_deep_it_lies(lines: Lines, name: str) -> None:
    line = logged(lines, **{name: "hunter2"}, headers={name: "hunter2", "to": [{name: ["hunter2"]}]})
    assert line[name] == REDACTED
    assert line["headers"] == {name: REDACTED, "to": [{name: REDACTED}]}
    assert "hunter2" not in orjson.dumps(lines()).decode()


def test_whether_there_is_a_secret_may_be_told(lines: Lines) -> None:
    line = logged(lines, password=None, has_token=True)
    assert (line["password"], line["has_token"]) == (None, True)


def test_the_password_of_an_address_is_not_written_wherever_it_stands(lines: Lines) -> None:
    url = "amqp://ada:hunter2@rabbit/jobs"
    try:
        raise ValueError(f"cannot reach {url}")
    except ValueError:
        logging.getLogger("services.mailer").exception("failed: %s", url)
    logged(lines, where=url, all=[url], by={"url": url})
    assert "hunter2" not in orjson.dumps(lines()).decode()
    assert lines()[0]["event"] == f"failed: amqp://ada:{REDACTED}@rabbit/jobs"


HOSTILE = '\x1b[2J\r\n{"level":"critical"}\u202e\ud800\x00' + "x" * 10_000_000


def test_a_hostile_text_of_10_mib_is_one_short_harmless_line(lines: Lines) -> None:
    class Foreign:
        def __repr__(self) -> str:
            return HOSTILE

    try:
        raise ValueError(HOSTILE)
    except ValueError:
        logging.getLogger("services.mailer").exception(HOSTILE)
    logged(lines, error=HOSTILE, thing=Foreign(), many=[HOSTILE], by={HOSTILE: HOSTILE}, **{HOSTILE[:50]: 1})
    first, second = lines()
    assert len(orjson.dumps(first)) < MAX_LINES * 2
    assert len(orjson.dumps(second)) < MAX_TEXT * 6
    assert first["exception"].startswith("Traceback (most recent call last):\n")
    assert all(line.isprintable() for line in first["exception"].split("\n"))
    for text in (first["event"], second["error"], second["thing"], *second["many"], *second["by"], *second):
        assert text.isprintable()


def test_a_console_obeys_nothing_that_came_from_outside(console: io.StringIO) -> None:
    logging.getLogger("services.mailer").warning("got %s", HOSTILE)
    structlog.stdlib.get_logger("services.mailer").info("said", error=HOSTILE)
    told = console.getvalue()
    assert len(told.splitlines()) == 2
    assert all(line.isprintable() for line in told.splitlines())
    assert len(told) < MAX_TEXT * 3


def test_collections_and_lines_have_a_bounded_size_and_depth(lines: Lines) -> None:
    endless: list[Any] = []
    endless.append(endless)
    line = logged(lines, many=range(10), long=list(range(10_000)), endless=endless, data=b"x" * 10_000)
    assert len(line["long"]) == MAX_ITEMS
    assert line["data"] == "<10000 bytes>"
    assert len(orjson.dumps(line["endless"])) < 50
    line = logged(lines, **{f"field{n}": n for n in range(1_000)})
    assert len(line) <= MAX_FIELDS + 2
    assert (line["event"], line["level"]) == ("said", "info")


def test_values_of_any_type_come_out_as_json(lines: Lines) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    when = datetime(2026, 1, 2, tzinfo=UTC)
    line = logged(lines, large=1 << 70, nan=float("nan"), when=when, wait=timedelta(seconds=90), thing=Broken(), t=(1,))
    assert line["large"] == "0x400000000000000000"
    assert (line["nan"], line["when"], line["wait"], line["t"]) == (None, "2026-01-02T00:00:00+00:00", 90.0, [1])
    assert line["thing"].startswith("<Broken that cannot be spelled")
