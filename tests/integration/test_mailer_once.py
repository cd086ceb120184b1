"""The mailer as it is put together: a mail that is asked for again under the same job id is not sent again."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock import AsyncPublisher, Done, Duplicate
from penstock.connect import store_for
from penstock.events import JobFinished
from penstock_jobs import SEND_EMAIL, SendEmail
from services.mailer.app import build
from tests.support.mail_server import mail_server
from tests.support.working import empty, working


async def test_a_mail_that_is_published_twice_goes_out_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await empty(url, "jobs.email")
    store = store_for(f"sqlite:///{tmp_path}/store.db")
    await store.migrate()
    mail = SEND_EMAIL.new(SendEmail(to="ada@example.org", template="welcome", values={"name": "Ada"}), id="mail-1")
    async with mail_server() as server:
        monkeypatch.setenv("MAILER_SMTP_URL", server.url)
        async with (
            build() as worker,
            working(url, worker.handlers, store=store) as watched,
            AsyncPublisher(url) as publisher,
        ):
            for count in (1, 2):
                await publisher.publish_many([mail])
                await watched.until(JobFinished, count)
    assert [type(event.outcome) for event in watched.finished] == [Done, Duplicate]
    assert [message["Message-ID"] for message in server.mails] == ["<mail-1@penstock>"]
