"""Alarms from end to end: something breaks on a real broker, people are told by pager and mail, and told of the end.

Prometheus and Alertmanager are the real ones, on the files of ``infra`` with shorter times.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from functools import partial
from pathlib import Path

import orjson
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import DeliveryError

from penstock.testing.broker_node import BrokerInfo
from services.demo.crew import Crew
from services.demo.monitoring import Watched, start
from tests.support.apps import Do
from tests.support.brokers import StartBroker, manage
from tests.support.mail_server import MailServer, mail_server
from tests.support.pagers import Pager, a_pager
from tests.support.processes import worker_process
from tests.support.rules import alerts
from tests.support.scrapes import ports_in
from tests.support.waiting import eventually
from tests.support.working import declare, empty, foreign, put, take_all

pytestmark = pytest.mark.timeout(600)

TOPOLOGY = "queues: {email: [email.*], idle: [idle.*], full: [full.*]}"

#: A minute of the files is this part of one.
PACE = 20
#: How long an alarm may take to reach people, on a machine that has much else to do (seconds).
PATIENCE = 150

#: Jobs that fall due for a queue which refuses them, and publishes until a queue begins to refuse, at most.
LATE = {f"late-{number}" for number in range(5)}
MANY = 10_000

#: As shipped, but a node tells its queues' lengths twice a second, and tries what was not taken again sooner.
ADVANCED = """\
[{rabbit, [
  {quorum_tick_interval, 500},
  {dead_letter_worker_consumer_prefetch, 1000},
  {dead_letter_worker_publisher_confirm_timeout, 3000}
]}].
"""


@dataclass
class Stream:
    """Jobs that come without end; *failing* says which of them fail for good."""

    url: str
    failing: Iterator[bool]

    async def run(self) -> None:
        """Publish until cancelled."""
        async with foreign(self.url) as channel:
            for number in itertools.count():
                job = Do("reject" if next(self.failing) else "nothing")
                await put(channel, "email.async", orjson.dumps(asdict(job)), message_id=f"stream-{number}")
                await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Scene:
    """A system under watch."""

    broker: BrokerInfo
    pager: Pager
    mails: MailServer
    stream: Stream

    @property
    def url(self) -> str:
        return self.broker.amqp_url

    async def told(self, alert: str, queue: str, status: str) -> str:
        """Wait until a mail has said that *alert* is of *status*, and the pager too where it is critical; the mail."""
        found = await eventually(partial(self._mailed, alert, queue, status), PATIENCE)
        if alerts()[alert]["labels"]["severity"] == "critical":
            await eventually(partial(self.pager.last, alert, queue, status), PATIENCE)
        return found or ""

    def _mailed(self, alert: str, queue: str, status: str) -> str | None:
        subject = f"[{status.upper()}] {alert} {queue} "
        texts = (text_of(mail) for mail in self.mails.mails if str(mail["Subject"]).startswith(subject))
        return next(texts, None)


def text_of(mail: EmailMessage) -> str:
    """What a person reads."""
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content())


@asynccontextmanager
async def watched(broker: BrokerInfo, folder: Path) -> AsyncIterator[Scene]:
    """A worker with much to do, the broker, and both under watch."""
    url = broker.amqp_url
    await declare(url, TOPOLOGY)
    async with (
        worker_process(url, folder, PENSTOCK_METRICS_PORT="0") as worker,
        a_pager() as pager,
        mail_server() as mails,
        Crew(folder, {}) as crew,
    ):
        [port] = await ports_in(worker.log)
        targets, metrics = [f"127.0.0.1:{port}"], f"127.0.0.1:{broker.ports.prometheus}"
        mail = f"127.0.0.1:{mails.port}"
        await start(crew, folder / "monitoring", Watched(targets, metrics, mail, pager.url, PACE))
        stream = Stream(url, itertools.repeat(False))
        running = asyncio.create_task(stream.run())
        try:
            yield Scene(broker, pager, mails, stream)
        finally:
            running.cancel()
            await asyncio.wait([running])


async def fail_one_job_in_ten(scene: Scene) -> None:
    """The handlers of a kind begin to fail, now and then."""
    scene.stream.failing = itertools.cycle([True] + 9 * [False])


async def fail_no_more(scene: Scene) -> None:
    scene.stream.failing = itertools.repeat(False)


async def kill_jobs(scene: Scene) -> None:
    """A dozen jobs are rejected."""
    await publish(scene.url, "email.thread", 12, do="reject")


async def remove_the_dead(scene: Scene) -> None:
    await empty(scene.url, "jobs.email.dead")


async def publish_for_nobody(scene: Scene) -> None:
    """Jobs come for a queue without a worker."""
    await publish(scene.url, "idle.job", 3)


async def take_what_nobody_took(scene: Scene) -> None:
    await empty(scene.url, "jobs.idle")


async def let_a_queue_refuse(scene: Scene) -> None:
    """Somebody sets a length limit on a work queue; when it is in force, what is delayed for the queue falls due."""
    limit(scene.broker, 1)
    async with foreign(scene.url) as channel:
        with pytest.raises(DeliveryError):
            await publish_many(channel)
        for name in LATE:
            await put(channel, "0." * 23 + "1.q.jobs.full", b"{}", exchange="jobs.delay", message_id=name)


async def publish_many(channel: AbstractChannel) -> None:
    for _ in range(MANY):
        await put(channel, "full.job", b"{}")


async def let_it_take_all(scene: Scene) -> None:
    """The limit is raised: 3.10 does not tell those who wait that one was removed (measured)."""
    limit(scene.broker, 1_000_000)


def limit(broker: BrokerInfo, length: int) -> None:
    policy = {"pattern": "^jobs.full$", "definition": {"max-length": length}, "apply-to": "queues"}
    manage(broker, "PUT", "/api/policies/%2F/limit", policy)


async def publish(url: str, key: str, count: int, do: str = "nothing") -> None:
    async with foreign(url) as channel:
        for _ in range(count):
            await put(channel, key, orjson.dumps(asdict(Do(do))))


Act = Callable[[Scene], Awaitable[None]]

#: The alert, what it speaks of, how to break things, how to mend them, and what it has to say.
ALARMS: dict[tuple[str, str], tuple[Act, Act, str]] = {
    ("PenstockJobFailureRate", "jobs.email"): (fail_one_job_in_ten, fail_no_more, "of the jobs email.async"),
    ("PenstockDeadLettersGrow", "jobs.email.dead"): (kill_jobs, remove_the_dead, "dead letters came into"),
    ("PenstockNoConsumers", "jobs.idle"): (publish_for_nobody, take_what_nobody_took, "3 jobs wait in jobs.idle"),
    ("PenstockDeadLetteringStuck", "jobs.delay.00-1s"): (let_a_queue_refuse, let_it_take_all, "do not arrive"),
}

#: What follows from the first of them, and is not for the pager.
MAILED = ("PenstockAttemptFailureRate", "jobs.email")


async def test_what_breaks_is_told_to_people_and_so_is_that_it_was_mended(
    own_broker: StartBroker, tmp_path: Path
) -> None:
    broker = own_broker(advanced=ADVANCED).status()
    assert broker is not None
    async with watched(broker, tmp_path) as scene:
        for break_it, _, _ in ALARMS.values():
            await break_it(scene)
        for (alert, queue), (_, _, words) in ALARMS.items():
            assert words in await scene.told(alert, queue, "firing")
        await scene.told(*MAILED, "firing")
        for _, mend, _ in ALARMS.values():
            await mend(scene)
        for alert, queue in ALARMS:
            await scene.told(alert, queue, "resolved")
        await scene.told(*MAILED, "resolved")
        async with foreign(scene.url) as channel:
            assert {message.message_id for message in await take_all(channel, "jobs.full")} >= LATE
    assert all("what to do: docs/runbook.md#penstock" in text_of(mail) for mail in scene.mails.mails)
    assert {alert["labels"]["severity"] for alert in scene.pager.alerts} == {"critical"}
