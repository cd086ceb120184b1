"""Any producer, any language: what each of them publishes runs as a job. The commands are those of the docs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from penstock import Done, Handlers, Job, JobKind
from penstock.events import JobFinished
from tests.support.brokers import Vhost, manage
from tests.support.working import declare, foreign, put, working

DOCS = Path(__file__).parents[2] / "docs" / "publish-from-anywhere.md"
ARGS = {"to": "ada@example.org"}


def _handlers() -> Handlers:
    handlers = Handlers()

    @handlers.on(JobKind("email.send", dict))
    async def send(job: Job[dict[str, Any]]) -> dict[str, Any]:
        return {"id": job.id, "args": job.args}

    return handlers


async def _ran(url: str, publish: Any) -> dict[str, Any]:
    """What the handler saw of the one job that *publish* publishes."""
    await declare(url)
    async with working(url, _handlers(), binds=["email.*"]) as worker:
        await publish()
        (finished,) = await worker.until(JobFinished)
    assert isinstance(finished.outcome, Done)
    seen: dict[str, Any] = finished.outcome.result  # type: ignore[assignment]  # what send returned
    return seen


async def _command(*words: str, url: str, **settings: str) -> str:
    def run() -> str:
        environment = os.environ | {"RABBITMQ_URL": url} | settings
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return await asyncio.to_thread(run)


async def test_the_form_of_the_management_ui(vhost: Vhost) -> None:
    """The UI's form posts just this: a routing key and a payload, no properties."""

    async def publish() -> None:
        message = {"routing_key": "email.send", "payload": json.dumps(ARGS), "payload_encoding": "string"}
        path = f"/api/exchanges/{vhost.name}/jobs/publish"
        answer = await asyncio.to_thread(manage, vhost.broker, "POST", path, message | {"properties": {}})
        assert answer == {"routed": True}

    seen = await _ran(vhost.url, publish)
    assert seen["args"] == ARGS
    assert seen["id"], "the worker gave the job an id"


async def test_amqp_publish_of_debian(vhost_url: str) -> None:
    async def publish() -> None:
        words = "amqp-publish --exchange jobs --routing-key email.send --persistent --content-type application/json"
        await _command(*words.split(), "--url", vhost_url, "--body", json.dumps(ARGS), url=vhost_url)

    assert (await _ran(vhost_url, publish))["args"] == ARGS


async def test_aio_pika(vhost_url: str) -> None:
    async def publish() -> None:
        async with foreign(vhost_url) as channel:
            await put(channel, "email.send", json.dumps(ARGS).encode(), message_id="order-1017-confirmation")

    assert await _ran(vhost_url, publish) == {"id": "order-1017-confirmation", "args": ARGS}


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Node's amqplib, installed for this run."""
    folder = tmp_path_factory.mktemp("node")
    npm = shutil.which("npm")
    assert npm is not None, "npm is missing: apt-get install npm"
    words = [npm, "install", "--silent", "--no-save", "--no-audit", "--no-fund", "amqplib@0.10"]
    subprocess.run(words, cwd=folder, check=True, capture_output=True, timeout=120)
    return folder / "node_modules"


@pytest.mark.matrix
async def test_node_as_the_docs_show_it(vhost_url: str, node_modules: Path) -> None:
    program = DOCS.read_text().split("```js\n")[1].split("```")[0]

    async def publish() -> None:
        await _command("node", "-e", program, url=vhost_url, NODE_PATH=str(node_modules))

    assert await _ran(vhost_url, publish) == {"id": "order-1017-confirmation", "args": ARGS}
