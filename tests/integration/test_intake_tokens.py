"""Who may do what through the HTTP door: tokens, their scopes and rates, and a door that is closed unless opened."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from penstock import ConfigError
from penstock.topology.matching import matches
from penstock.topology.reading import read_spec
from penstock_jobs import KINDS
from services.intake.settings import Settings
from tests.support.commands import Finished
from tests.support.intake import WELCOME, Intake, intake_process
from tests.support.processes import ROOT
from tests.support.waiting import eventually
from tests.support.working import LEVELS, depth, empty

pytestmark = pytest.mark.timeout(120)

REPORT = {"region": "north"}
HOSTS = [
    *((host, True) for host in ("localhost", "127.0.0.1", "127.9.9.9", "::1")),
    *((host, False) for host in ("0.0.0.0", "::", "192.0.2.1", "intake.example.org", "localhost.example.org")),
]


def command(*words: str, **environment: str) -> Finished:
    """``python -m services.intake`` with *words*."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "INTAKE_"))}
    done = subprocess.run(
        [sys.executable, "-m", "services.intake", *words],
        cwd=ROOT,
        env={**kept, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=50,
        check=False,
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def token(file: Path, name: str, *words: str) -> str:
    """A new token for *name* in *file*."""
    made = command("token", name, "--file", str(file), *words)
    assert made.code == 0, made.err
    return made.out.strip()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokens' file."""
    return tmp_path_factory.mktemp("tokens") / "tokens.yaml"


@pytest.fixture(scope="module")
def mails(file: Path) -> str:
    """A token that may publish mails."""
    return token(file, "shop", "--kinds", "email.*")


@pytest.fixture(scope="module")
def reader(file: Path) -> str:
    """A token that may read anything and publish nothing."""
    return token(file, "board", "--kinds", "#", "--may", "read")


@pytest.fixture(scope="module")
def intake(url: str, file: Path, mails: str, reader: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Intake]:
    """An intake with tokens, which lets each ask 40 times at once and then once in ten seconds."""
    assert mails != reader
    folder = tmp_path_factory.mktemp("intake")
    with intake_process(url, folder, INTAKE_TOKENS=str(file), INTAKE_RATE="0.1", INTAKE_BURST="40") as intake:
        yield intake


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", *LEVELS)


async def test_without_a_known_token_nothing_is_taken(intake: Intake, url: str, mails: str) -> None:
    for given in ({}, {"authorization": "Bearer"}, {"authorization": f"Basic {mails}"}, {"authorization": "Bearer x"}):
        said = await intake.ask("POST", "/v1/jobs/email.send", WELCOME, **given)
        assert (said.status, said.problem) == (401, "unauthorized")
        assert said.headers["www-authenticate"].startswith("Bearer")
    assert (await intake.ask("GET", "/v1/kinds")).status == 401
    assert await depth(url, "jobs.email") == 0


async def test_a_token_opens_what_it_says_and_nothing_else(intake: Intake, mails: str) -> None:
    bearer = f"Bearer {mails}"
    assert (await intake.ask("POST", "/v1/jobs/email.send", WELCOME, authorization=bearer)).status == 202
    for kind in ("report.sales", "credit.add", "no.such_kind"):
        said = await intake.ask("POST", f"/v1/jobs/{kind}", REPORT, authorization=bearer)
        assert (said.status, said.problem) == (403, "forbidden")
    kinds = (await intake.ask("GET", "/v1/kinds", authorization=bearer)).json["kinds"]
    assert [kind["kind"] for kind in kinds] == ["email.send"]


async def test_in_a_batch_the_token_counts_for_each_job(intake: Intake, mails: str) -> None:
    jobs = [{"kind": "email.send", "args": WELCOME}, {"kind": "report.sales", "args": REPORT}]
    said = await intake.ask("POST", "/v1/jobs", {"jobs": jobs}, authorization=f"Bearer {mails}")
    assert [one["status"] for one in said.json["results"]] == [202, 403]


async def test_a_token_that_reads_publishes_nothing(intake: Intake, reader: str, url: str) -> None:
    said = await intake.ask("POST", "/v1/jobs/email.send", WELCOME, authorization=f"Bearer {reader}")
    assert (said.status, said.problem) == (403, "forbidden")
    assert await depth(url, "jobs.email") == 0


async def test_the_same_key_of_two_clients_is_two_jobs(intake: Intake, file: Path, mails: str) -> None:
    other = token(file, "partner", "--kinds", "email.send")
    asked = {"idempotency_key": "order-1"}
    first = await intake.ask("POST", "/v1/jobs/email.send", WELCOME, authorization=f"Bearer {mails}", **asked)

    async def known() -> str:
        said = await intake.ask("POST", "/v1/jobs/email.send", WELCOME, authorization=f"Bearer {other}", **asked)
        return str(said.json["id"]) if said.status == 202 else ""

    assert await eventually(known) != first.json["id"]  # the file was read again meanwhile


async def test_a_token_that_is_taken_away_opens_nothing_any_more(intake: Intake, file: Path) -> None:
    gone = token(file, "gone", "--kinds", "email.send")

    async def status_is(status: int) -> bool:
        return (await intake.ask("GET", "/v1/kinds", authorization=f"Bearer {gone}")).status == status

    await eventually(lambda: status_is(200))
    take_away(file, "gone")
    await eventually(lambda: status_is(401))


def take_away(file: Path, name: str) -> None:
    """Delete the tokens of *name*."""
    file.write_text("".join(line for line in file.read_text().splitlines(True) if f'"{name}"' not in line))


async def test_a_broken_file_changes_nothing_and_is_told(intake: Intake, file: Path, mails: str) -> None:
    with broken(file):
        await eventually(lambda: told(intake, mails))


@contextmanager
def broken(file: Path) -> Iterator[None]:
    """The file with half a line at its end."""
    whole = file.read_text()
    file.write_text(f"{whole}- {{name: broken")
    yield
    file.write_text(whole)


async def told(intake: Intake, mails: str) -> bool:
    """Whether the log tells of the broken file; the tokens that were there count all along."""
    assert (await intake.ask("GET", "/v1/kinds", authorization=f"Bearer {mails}")).status in (200, 429)
    return b"the tokens cannot be read" in intake.log.read_bytes()


async def test_whoever_asks_too_often_is_told_when_to_come_back(intake: Intake, file: Path) -> None:
    hasty = token(file, "hasty", "--kinds", "email.send")
    bearer = f"Bearer {hasty}"

    async def known() -> bool:
        return (await intake.ask("GET", "/v1/kinds", authorization=bearer)).status == 200

    await eventually(known)
    jobs = {"jobs": [{"kind": "email.send", "args": WELCOME}] * 40}
    assert (await intake.ask("POST", "/v1/jobs", jobs, authorization=bearer)).status == 202
    said = await intake.ask("GET", "/v1/kinds", authorization=bearer)
    assert (said.status, said.problem) == (429, "rate")
    assert 1 <= int(said.headers["retry-after"]) <= 30


async def test_the_page_is_shown_to_this_machine(intake: Intake) -> None:
    said = await intake.ask("GET", "/openapi.json")
    assert said.json["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_a_token_is_printed_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    made = token(file, "shop", "--kinds", "email.*", "report.*", "--may", "publish", "read")
    assert made.startswith("penstock_")
    assert len(made) > 40
    assert made not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shop", "--kinds", "Email.*"), "kind pattern 'Email.*'"),
        (("shop", "--kinds", "*"), "kind pattern '*'"),
        (("a b", "--kinds", "email.*"), "'a b' is not a name"),
    ],
)
def test_a_token_that_cannot_be_meant_is_not_made(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    made = command("token", *words, "--file", str(tmp_path / "tokens.yaml"))
    assert (made.code, made.out) == (5, "")
    assert made.err.startswith(f"intake: {said}")
    assert not (tmp_path / "tokens.yaml").exists()


def test_the_door_does_not_open_to_others_without_tokens(tmp_path: Path) -> None:
    refused = command(INTAKE_HOST="0.0.0.0", RABBITMQ_URL="amqp://127.0.0.1:1")
    assert (refused.code, refused.err.count("\n")) == (5, 1)
    assert "INTAKE_TOKENS" in refused.err
    empty_file = tmp_path / "tokens.yaml"
    empty_file.write_text("# all of them were taken away\n")
    refused = command(INTAKE_TOKENS=str(empty_file), RABBITMQ_URL="amqp://127.0.0.1:1")
    assert (refused.code, refused.err.count("\n")) == (5, 1)
    assert "holds no token" in refused.err


@pytest.mark.parametrize(("host", "opens"), HOSTS)
def test_this_machine_is_what_only_it_can_reach(monkeypatch: pytest.MonkeyPatch, host: str, opens: bool) -> None:
    monkeypatch.setenv("INTAKE_HOST", host)
    if opens:
        assert Settings.read().shows_docs
        return
    with pytest.raises(ConfigError, match="INTAKE_TOKENS"):
        Settings.read()


def test_a_broken_file_of_tokens_is_told_with_every_line(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text(
        "- {name: shop, hash: abc, kinds: [email.*], may: [publish]}\n"
        "- {name: shop, kinds: ['#'], may: [publish]}\n"
        f"- {{name: shop, hash: 'sha256:{'0' * 64}', kinds: ['*'], may: [pubish], until: never}}\n"
    )
    refused = command(INTAKE_TOKENS=str(file), RABBITMQ_URL="amqp://127.0.0.1:1")
    assert refused.code == 5
    assert [line.split(":")[2] for line in refused.err.splitlines()] == ["1", "2", "3", "3", "3"]
    assert "did you mean publish?" in refused.err


def test_the_broker_lets_the_intake_publish_every_kind_of_the_catalogue() -> None:
    spec = read_spec(ROOT / "rabbitmq" / "topology.yaml")
    [user] = [user for user in spec.users if user.name == "intake"]
    refused = [kind.name for kind in KINDS if not any(matches(pattern, kind.name) for pattern in user.publishes)]
    assert refused == []
