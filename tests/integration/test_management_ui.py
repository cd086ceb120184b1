"""RabbitMQ's own management UI as the face of the system: what a person can do and see there with a browser alone."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from playwright.async_api import expect

from penstock import Done, Handlers, Job, JobKind, Reject, RetryPolicy
from penstock.events import JobFinished
from penstock.testing.broker_node import BrokerInfo
from tests.support.management_ui import PATIENCE, ManagementUi, management_ui
from tests.support.working import LEVELS, Watched, empty, working

SEND = JobKind("email.send", dict)

handlers = Handlers()
#: The names that the mail server knows by itself.
aliases: set[str] = set()


@handlers.on(SEND, retry=RetryPolicy(first=timedelta(seconds=100)))
async def send(job: Job[dict[str, Any]]) -> str:
    """Refuse a bad address for good, and wait for a mail server that is down."""
    if "@" not in job.args["to"] and job.args["to"] not in aliases:
        raise Reject(f"550 no such address: {job.args['to']}")
    if job.args["to"].endswith("example.net"):
        raise ConnectionRefusedError("the mail server is down")
    return f"sent to {job.args['to']}"


@pytest.fixture
async def ui(broker: BrokerInfo, url: str) -> AsyncIterator[ManagementUi]:
    """The UI in a browser, over empty queues."""
    aliases.clear()
    await empty(url, "jobs.email", "jobs.email.dead", *LEVELS)
    async with management_ui(broker, unquote(urlsplit(url).path[1:])) as ui:
        yield ui
    await empty(url, "jobs.email", *LEVELS)  # a retry is under way


async def publish(ui: ManagementUi, payload: str) -> None:
    """Publish a job with the form of the exchange ``jobs``."""
    await ui.open("exchanges", "jobs")
    form = await ui.section("Publish message")
    await form.locator("input[name=routing_key]").fill("email.send")
    await form.locator("textarea[name=payload]").fill(payload)
    await ui.picture("publish")
    await form.locator("input[type=submit]").click()
    await ui.says("Message published.")


async def finished(worker: Watched, count: int) -> Any:
    """The outcome of the last of *count* runs."""
    return (await worker.until(JobFinished, count, within=40))[count - 1].outcome


@pytest.mark.timeout(240)
async def test_a_person_with_a_browser_publishes_watches_reads_and_mends(url: str, ui: ManagementUi) -> None:
    async with working(url, handlers) as worker:
        await publish(ui, '{"to": "ada@example.org"}')
        assert await finished(worker, 1) == Done("sent to ada@example.org")

        await ui.open("connections")
        for role in ("consume", "publish"):
            await ui.lists(re.compile(rf"email@\S+:\d+ {role}"))
        await ui.picture("connections")

        await publish(ui, '{"to": "bob@example.net"}')
        await finished(worker, 2)
        await publish(ui, '{"to": "nobody"}')
        await finished(worker, 3)
        await ui.open("queues")
        await ui.lists("jobs.delay.06-1m", "1")
        await ui.lists("jobs.email.dead", "1")
        await ui.picture("queues")

        await ui.open("queues", "jobs.email")
        consumers = await ui.section("Consumers")
        await expect(consumers).to_contain_text(re.compile(r"email@\S+:\d+#\d+"), timeout=PATIENCE)

        await ui.open("queues", "jobs.email.dead")
        letters = await ui.section("Get messages")
        await letters.locator("input[type=submit]").click()
        story = ui.page.locator("#msg-wrapper")
        for words in ("penstock-reason", "rejected", "550 no such address: nobody", "attempt 1 dead"):
            await expect(story).to_contain_text(words, timeout=PATIENCE)
        await story.scroll_into_view_if_needed()
        await ui.picture("dead-letter")

        aliases.add("nobody")
        moving = await ui.section("Move messages")
        await moving.locator("input[name=dest-queue]").fill("jobs.email")
        await ui.picture("move")
        await moving.locator("input[type=submit]").click()
        assert await finished(worker, 4) == Done("sent to nobody")
