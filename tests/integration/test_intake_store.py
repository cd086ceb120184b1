"""The HTTP door with a store: where a job stands, who may know, and keys that outlive the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import Handlers, Job, Reject
from penstock.claims import Claim, Mark, State, new_token
from penstock.clock import new_job_id
from penstock.connect import store_for
from penstock_jobs import SEND_EMAIL, SendEmail
from services.intake.tokens import Action, add_token
from tests.support.intake import WELCOME, Intake, Said, intake_process
from tests.support.outboxes import migrated
from tests.support.waiting import eventually
from tests.support.working import Watched, depth, empty, foreign, take, working

pytestmark = pytest.mark.timeout(120)

SEND = "/v1/jobs/email.send"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where store and tokens are."""
    return tmp_path_factory.mktemp("intake")


@pytest.fixture(scope="module")
def tokens(folder: Path) -> dict[str, str]:
    """A token by name."""
    file, both = folder / "tokens.yaml", list(Action)
    return {
        "mails": add_token(file, "mails", ["email.*"], both),
        "sender": add_token(file, "sender", ["email.*"], [Action.PUBLISH]),
        "reports": add_token(file, "reports", ["report.*"], both),
        "board": add_token(file, "board", ["#"], [Action.READ]),
    }


@pytest.fixture(scope="module")
def settings(folder: Path, tokens: dict[str, str]) -> dict[str, str]:
    """What the intakes of this file are told: tokens, a store, and to trace."""
    assert tokens
    return {
        "INTAKE_TOKENS": str(folder / "tokens.yaml"),
        "PENSTOCK_STORE_URL": f"sqlite:///{folder}/store.db",
        "PENSTOCK_TOPOLOGY": "rabbitmq/topology.audit.yaml",
        "OTEL_TRACES_EXPORTER": "console",
    }


@pytest.fixture(scope="module")
def store_url(settings: dict[str, str]) -> str:
    """The store, with its tables."""
    return asyncio.run(migrated(settings["PENSTOCK_STORE_URL"]))


@pytest.fixture(scope="module")
def intake(store_url: str, url: str, folder: Path, settings: dict[str, str]) -> Iterator[Intake]:
    """One intake."""
    assert store_url
    with intake_process(url, folder / "one", **settings) as intake:
        yield intake


@pytest.fixture
async def worker(store_url: str, url: str) -> AsyncIterator[Watched]:
    """A worker that remembers mails, and rejects those to nobody."""
    await empty(url, "jobs.email", "jobs.email.dead")
    handlers = Handlers()

    @handlers.on(SEND_EMAIL, once="lease")
    async def send(job: Job[SendEmail]) -> dict[str, Any]:
        if job.args.to.startswith("nobody"):
            raise Reject("nobody there")
        return {"sent_to": job.args.to}

    async with working(url, handlers, store=store_for(store_url)) as watched:
        yield watched


async def look(intake: Intake, job_id: str, token: str) -> Said:
    """Where the job stands."""
    return await intake.ask("GET", f"/v1/jobs/{job_id}", authorization=f"Bearer {token}")


async def test_a_job_can_be_looked_at_by_who_may_read_its_kind(
    intake: Intake, tokens: dict[str, str], worker: Watched
) -> None:
    bearer = f"Bearer {tokens['mails']}"
    said = await intake.ask("POST", SEND, WELCOME, authorization=bearer)
    dead = await intake.ask("POST", SEND, {**WELCOME, "to": "nobody@example.org"}, authorization=bearer)
    job_id = said.json["id"]
    assert said.headers["location"] == f"/v1/jobs/{job_id}"

    async def ended() -> bool:
        found = [await look(intake, one, tokens["mails"]) for one in (job_id, dead.json["id"])]
        return [one.status == 200 and one.json["state"] for one in found] == ["done", "dead"]

    await eventually(ended)
    found = await look(intake, job_id, tokens["board"])
    seen = {"queue": "email", "state": "done", "copy": 0, "result": {"sent_to": "ada@example.org"}}
    assert found.json == {"id": job_id, **seen, "queues": [seen]}
    for name in ("reports", "sender"):
        assert (await look(intake, job_id, tokens[name])).problem == "unknown-job"
    assert (await look(intake, "never-heard-of", tokens["board"])).problem == "unknown-job"
    assert len(worker.finished) == 2


async def test_that_a_job_was_audited_does_not_say_that_it_is_done(
    intake: Intake, store_url: str, tokens: dict[str, str]
) -> None:
    store, watched, worked = store_for(store_url), new_job_id(), new_job_id()
    await store.open()
    try:
        for queue, job_id in (("audit", watched), ("email", worked)):
            claim = Claim(queue, job_id, 0, new_token(), 1000, None)
            await store.claim([claim])
            assert await store.mark([Mark(claim, State.DONE, None)]) == [True]
    finally:
        await store.close()
    assert (await look(intake, watched, tokens["board"])).problem == "unknown-job"
    assert (await look(intake, worked, tokens["board"])).json["state"] == "done"


async def test_a_key_counts_after_a_restart_as_the_store_remembers(
    intake: Intake, url: str, folder: Path, tokens: dict[str, str], settings: dict[str, str], worker: Watched
) -> None:
    # The store outlives a broker: its next one would know the key.
    asked = {"authorization": f"Bearer {tokens['mails']}", "idempotency_key": new_job_id()}
    first = await intake.ask("POST", SEND, WELCOME, **asked)
    await eventually(lambda: len(worker.finished) == 1)
    with intake_process(url, folder / "two", **settings) as second:
        again = await second.ask("POST", SEND, WELCOME, **asked)
        other = await second.ask("POST", SEND, {**WELCOME, "order_id": "B"}, **asked)
    assert (again.status, again.json["id"]) == (202, first.json["id"])
    assert again.headers["idempotent-replayed"] == "true"
    assert (other.status, other.problem) == (409, "conflict")
    assert len(worker.finished) == 1


async def test_a_job_belongs_to_the_trace_of_its_request(intake: Intake, url: str, tokens: dict[str, str]) -> None:
    await empty(url, "jobs.email")
    parent = f"00-{TRACE}-b7ad6b7169203331-01"
    for given in (parent, "nonsense"):
        said = await intake.ask("POST", SEND, WELCOME, authorization=f"Bearer {tokens['mails']}", traceparent=given)
        assert said.status == 202
    async with foreign(url) as channel:
        told = [(await take(channel, "jobs.email")).headers["traceparent"] for _ in range(2)]
    assert TRACE in str(told[0])
    assert TRACE not in str(told[1])


async def test_a_store_that_cannot_be_used_is_told_at_the_start(url: str, tmp_path: Path) -> None:
    settings = {"PENSTOCK_STORE_URL": f"sqlite:///{tmp_path}/nowhere/store.db"}
    with pytest.raises(AssertionError, match="intake: "), intake_process(url, tmp_path, **settings):
        pass
    assert await depth(url, "jobs.email") == 0
