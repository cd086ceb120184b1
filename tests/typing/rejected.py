"""Code that mypy --strict must refuse, line by line: each marked line has the error code that is expected of it."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from penstock import AsyncPublisher, Handlers, Job, JobKind, Publisher, RetryPolicy, Transaction, Worker, outbox


class SendEmail(BaseModel):
    to: str


class Resize(BaseModel):
    width: int


SEND_EMAIL = JobKind("email.send", SendEmail)
RESIZE = JobKind("image.resize", Resize)
handlers = Handlers()


@handlers.on(SEND_EMAIL)  # expect: arg-type
async def wrong_job(job: Job[Resize]) -> None: ...


@handlers.on(RESIZE)  # expect: arg-type
def no_job() -> None: ...


@handlers.on(RESIZE)
async def wrong_field(job: Job[Resize]) -> None:
    _ = job.args.height  # expect: attr-defined


@handlers.on(RESIZE, once="effect")  # expect: arg-type
async def no_transaction(job: Job[Resize]) -> None: ...


@handlers.on(RESIZE, once="effect")  # expect: arg-type
async def wrong_job_with_a_transaction(job: Job[SendEmail], tx: Transaction) -> None: ...


@handlers.on(RESIZE, once="lease")  # expect: arg-type
async def a_transaction_without_effect(job: Job[Resize], tx: Transaction) -> None: ...


@handlers.on(RESIZE, once="effect")
async def forgets_to_await(job: Job[Resize], tx: Transaction) -> None:
    tx.execute("DELETE FROM images WHERE width = %s", (job.args.width,))  # expect: unused-coroutine


def publishes(publisher: Publisher) -> None:
    publisher.publish(SEND_EMAIL, Resize(width=1))  # expect: misc
    publisher.publish(SEND_EMAIL, {"to": "a@example.org"})  # expect: misc
    publisher.publish("email.send", SendEmail(to="a"))  # expect: arg-type
    publisher.publish(SEND_EMAIL, SendEmail(to="a"), delay=5)  # expect: arg-type
    SEND_EMAIL.new(Resize(width=1))  # expect: arg-type


async def forgets_await(publisher: AsyncPublisher) -> None:
    publisher.publish(SEND_EMAIL, SendEmail(to="a"))  # expect: unused-coroutine


async def adds(tx: Transaction) -> None:
    outbox.add(tx, SEND_EMAIL, SendEmail(to="a"))  # expect: unused-coroutine
    await outbox.add(tx, SEND_EMAIL, Resize(width=1))  # expect: misc
    await outbox.add(tx, SEND_EMAIL, SendEmail(to="a"), delay=5)  # expect: call-overload
    await outbox.add(None, SEND_EMAIL, SendEmail(to="a"))  # expect: call-overload


RetryPolicy(first=1)  # expect: arg-type
RetryPolicy(give_up_on=("ValueError",))  # expect: arg-type
Worker(handlers)  # expect: call-arg
Worker(queue="email", handlers={})  # expect: arg-type
handlers.on(RESIZE, timeout=timedelta(seconds=1), retries=3)  # expect: call-overload
handlers.on(RESIZE, once="twice")  # expect: call-overload
