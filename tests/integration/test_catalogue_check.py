"""``penstock catalogue check``: what does not fit together is found before a broker has seen it."""

from __future__ import annotations

import sys
from pathlib import Path

import orjson
import pytest

from tests.support.commands import penstock_here
from tests.support.processes import ROOT

SHOP = """\
from pydantic import BaseModel, ConfigDict

from penstock import Handlers, JobKind, Worker


class Mail(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"to": "ada"}, {"to": 5}]})
    to: str


SEND, COUNT, LOST, HELD = (JobKind(name, Mail if "send" in name else dict) for name in KINDS_OF)
KINDS = [SEND, COUNT, LOST, HELD]


async def run(job):
    pass


def mailer():
    handlers = Handlers()
    handlers.on(SEND)(run)
    handlers.on(JobKind("email.snd", dict))(run)
    handlers.on(HELD)(run)
    return Worker(handlers, queue="email")


def lost():
    handlers = Handlers()
    handlers.on(LOST)(run)
    return Worker(handlers, queue="emial")


def broken():
    raise ValueError("no such folder")
"""
TOPOLOGY = "queues: {email: [email.*], held: [held.*], reports: [report.*]}\n"
KINDS_OF = ("email.send", "email.count", "lost.ask", "held.wait")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project in which nothing fits, and the current directory; its name is given back after the test."""
    (tmp_path / "gappy_shop.py").write_text(f"KINDS_OF = {KINDS_OF}\n{SHOP}")
    (tmp_path / "topology.yaml").write_text(TOPOLOGY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gappy_shop", raising=False)


NAMED = ("--catalogue", "gappy_shop:KINDS", "--file", "topology.yaml")


def test_everything_of_ours_fits_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = penstock_here(
        *("catalogue", "check", "--file", "rabbitmq/topology.audit.yaml"), PENSTOCK_STORE_URL="sqlite:///store.db"
    )
    assert (done.code, done.err) == (0, ""), done.out
    assert done.out.endswith(": all fit together\n")


@pytest.mark.usefixtures("shop")
def test_each_gap_is_found_and_told() -> None:
    done = penstock_here("catalogue", "check", "gappy_shop:mailer", "--app", "gappy_shop:lost", *NAMED, "--json")
    assert done.code == 6, done.err
    told = orjson.loads(done.out)
    assert {(each["gap"], each["about"]) for each in told["found"]} == {
        ("kind without a queue", "lost.ask"),
        ("kind without a handler", "email.count"),
        ("queue without a worker", "held"),
        ("queue without a worker", "reports"),
        ("worker without a queue", "gappy_shop:lost"),
        ("handler without a kind", "email.snd"),
        ("handler that nothing reaches", "held.wait"),
        ("example that does not fit", "email.send"),
    }
    words = {each["about"]: each["words"] for each in told["found"]}
    assert words["email.snd"].endswith("the catalogue no such kind; did you mean email.send?")
    assert words["email.send"].startswith("example 2: the arguments do not fit email.send: to: ")
    assert told["not_checked"] == []


@pytest.mark.usefixtures("shop")
def test_a_worker_that_cannot_be_built_is_told_and_hides_no_other_gap() -> None:
    done = penstock_here("catalogue", "check", "gappy_shop:broken", *NAMED)
    assert done.code == 6, done.err
    lines = done.out.splitlines()
    assert "worker that cannot be built: gappy_shop:broken: ValueError: no such folder" in lines
    assert not any(line.startswith("queue without a worker") for line in lines)
    assert lines[-1] == "4 kinds, 3 queues, 0 workers: 3 found"


@pytest.mark.usefixtures("shop")
def test_without_workers_it_says_what_was_not_checked() -> None:
    done = penstock_here("catalogue", "check", *NAMED)
    assert (done.code, done.err) == (6, "")
    assert "workers are not checked: no services/*/app.py builds one; name MODULE:FACTORY" in done.out


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (("--catalogue", "nowhere:KINDS"), 2, "no module 'nowhere'"),
        (("--catalogue", "gappy_shop:mailer"), 2, "gappy_shop:mailer is not a collection of JobKinds"),
        (("--catalogue", "gappy_shop:KINDS", "--file", "none.yaml"), 5, "none.yaml: No such file or directory"),
    ],
)
def test_what_it_cannot_read_it_says_in_one_line(words: tuple[str, ...], code: int, line: str) -> None:
    done = penstock_here("catalogue", "check", *words)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert line in done.err
