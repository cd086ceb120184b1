"""Code that must pass mypy --strict as it stands: the types of the public API, in use. Never executed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection as File
from typing import Any, TypedDict, assert_type

import psycopg
from pydantic import BaseModel

from penstock import (
    AsyncPublisher,
    BlockingTransaction,
    Handlers,
    Job,
    JobKind,
    Middleware,
    NewJob,
    Next,
    Publisher,
    Receipt,
    Reject,
    Result,
    Results,
    Retry,
    RetryPolicy,
    Snooze,
    Transaction,
    Worker,
    outbox,
)
from penstock.schedules.events import Ticked
from penstock.testing import Schedule, WorkerTest, parse_schedules, read_schedules


class SendEmail(BaseModel):
    to: str


@dataclass
class Resize:
    width: int


class Row(TypedDict):
    id: int


SEND_EMAIL = JobKind("email.send", SendEmail)
RESIZE = JobKind("image.resize", Resize)
ROW = JobKind("row.add", Row)
ANYTHING = JobKind("any.thing", dict[str, Any])

handlers = Handlers()


@handlers.on(SEND_EMAIL, retry=RetryPolicy(max_attempts=8, give_up_on=(ValueError,)), timeout=timedelta(seconds=30))
async def send_email(job: Job[SendEmail]) -> None:
    assert_type(job.args, SendEmail)
    raise Retry(after=timedelta(seconds=5)) from Snooze(after=timedelta(minutes=1))


@handlers.on(RESIZE)
def resize(job: Job[Resize]) -> int:
    if job.args.width < 1:
        raise Reject("no width")
    return job.args.width


@handlers.on(ROW, once="effect")
async def add_row(job: Job[Row], tx: Transaction) -> int:
    return (await tx.execute("INSERT INTO rows VALUES (%s)", (job.args["id"],))).rowcount


@handlers.on(JobKind("row.add_in_a_thread", Row), once="effect", retry=RetryPolicy(max_attempts=2))
def add_row_in_a_thread(job: Job[Row], tx: BlockingTransaction) -> int:
    return tx.execute("INSERT INTO rows VALUES (%(id)s)", {"id": job.args["id"]}).rowcount


@handlers.on(JobKind("row.mail", Row), once="lease")
async def mail_row(job: Job[Row]) -> str:
    return job.id


async def audit(job: Job[Any], call_next: Next) -> object:
    return await call_next(job)


middleware: list[Middleware] = [audit]
worker = Worker(handlers, queue="email", middleware=middleware)


def blocking(publisher: Publisher) -> Receipt:
    many: list[NewJob[Any]] = [SEND_EMAIL.new(SendEmail(to="a@example.org"))]
    many.append(RESIZE.new(Resize(1), delay=timedelta(seconds=5)))
    assert_type(publisher.publish_many(many), list[Receipt])
    assert_type(RESIZE.new(Resize(1)), NewJob[Resize])
    return publisher.publish(ROW, Row(id=1), at=datetime.now(UTC), expires=timedelta(hours=1))


async def on_a_loop(publisher: AsyncPublisher) -> Receipt:
    return await publisher.publish(SEND_EMAIL, SendEmail(to="a@example.org"), id="order-1")


async def with_my_rows(tx: Transaction, connection: psycopg.AsyncConnection) -> Receipt:
    assert_type(await outbox.add(tx, RESIZE, Resize(1), delay=timedelta(seconds=5)), Receipt)
    return await outbox.add(connection, ROW, Row(id=1), app_id="shop")


def with_my_rows_in_a_thread(tx: BlockingTransaction, connection: psycopg.Connection, file: File) -> Receipt:
    assert_type(outbox.add(tx, RESIZE, Resize(1)), Receipt)
    assert_type(outbox.add(connection, RESIZE, Resize(1), id="order-1", correlation_id="1"), Receipt)
    return outbox.add(file, SEND_EMAIL, SendEmail(to="a@example.org"), at=datetime.now(UTC))


async def results() -> Result | None:
    async with Results("sqlite:///store.db") as found:
        assert_type(await found.wait("order-1", timeout=timedelta(seconds=5)), Result)
        return await found.get("order-1", consumer="email")


async def under_test(handlers: Handlers) -> None:
    some: list[Schedule] = [each for each in read_schedules(Path("schedules.yaml")) if each.enabled]
    async with WorkerTest(handlers, schedules=[*some, *parse_schedules("schedules: {}")]) as t:
        await t.advance(timedelta(hours=1))
        assert_type(t.ticks[0], Ticked)
