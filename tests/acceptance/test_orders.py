"""The orders command as a process on a real broker: exit codes, bad rows by line, the same ids again."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from penstock_jobs import SALES_REPORT, SEND_EMAIL
from services.intake.tokens import Action, add_token
from tests.support.intake import intake_process
from tests.support.working import declare, depth, foreign, take

TOPOLOGY = "queues: {email: [email.*], reports: [report.*]}"
HEADER = "order_id,name,email,region,item,quantity,amount"
GOOD = [f"A-{n},Ada,ada@example.org,{region},teapot,2,49.80" for n, region in enumerate(("North", "South", "north"))]
DOWN = "amqp://guest:guest@127.0.0.1:1/"


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


async def submit(url: str, folder: Path, source: str, *options: str, fed: str | None = None, **settings: str) -> Ended:
    """Run the command with *folder* as its place."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.orders", source, *options,
        cwd=folder,
        env={"RABBITMQ_URL": url, "PENSTOCK_CONNECT_TIMEOUT": "1", "PATH": "/usr/bin:/bin", **settings},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(None if fed is None else fed.encode()), 50)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


def a_file(folder: Path, *lines: str) -> str:
    (folder / "orders.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    return "orders.csv"


async def test_orders_become_mails_and_reports_that_another_client_can_read(vhost_url: str, tmp_path: Path) -> None:
    await declare(vhost_url, TOPOLOGY)
    ended = await submit(vhost_url, tmp_path, a_file(tmp_path, *GOOD), "--run", "july")
    assert (ended.code, ended.err) == (0, "")
    assert "3 mails and 2 reports published, 0 bad rows" in ended.out
    async with foreign(vhost_url) as channel:
        mails = [await take(channel, "jobs.email") for _ in range(3)]
        reports = [await take(channel, "jobs.reports") for _ in range(2)]
    assert [SEND_EMAIL.decode(mail.body).order_id for mail in mails] == ["A-0", "A-1", "A-2"]
    assert {mail.correlation_id for mail in mails} == {"july"}
    for report in reports:
        args = SALES_REPORT.decode(report.body)
        assert (tmp_path / "var/reports/source" / args.folder / args.source).exists()


async def test_bad_rows_are_told_by_line_and_the_good_ones_published(vhost_url: str, tmp_path: Path) -> None:
    await declare(vhost_url, TOPOLOGY)
    source = a_file(tmp_path, GOOD[0], "A-9,Ada,nobody,North,teapot,2,49.80", "torn", GOOD[1])
    ended = await submit(vhost_url, tmp_path, source)
    assert ended.code == 6
    assert ended.err.splitlines() == [
        "line 3: email: must be a plain address such as ada@example.org",
        "line 4: 1 fields instead of 7",
    ]
    assert "2 mails and 2 reports published, 2 bad rows, 5 lines read" in ended.out


async def test_records_on_standard_input_have_the_ids_of_the_same_orders_in_a_file(
    vhost_url: str, tmp_path: Path
) -> None:
    await declare(vhost_url, TOPOLOGY)
    records = [dict(zip(HEADER.split(","), line.split(","), strict=True)) for line in GOOD]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    for source, fed in ((a_file(tmp_path, *GOOD), None), ("-", lines)):
        assert (await submit(vhost_url, tmp_path, source, "--receipts", "receipts", fed=fed)).code == 0
    ids = [json.loads(line)["id"] for line in (tmp_path / "receipts").read_text().splitlines()]
    assert len(ids) == 10
    assert ids[:5] == ids[5:]


async def test_a_kind_no_queue_takes_is_not_taken(vhost_url: str, tmp_path: Path) -> None:
    await declare(vhost_url, "queues: {email: [email.*]}")
    ended = await submit(vhost_url, tmp_path, a_file(tmp_path, GOOD[0]))
    assert ended.code == 7
    assert "1 mails and 0 reports published, 0 bad rows, 1 not taken" in ended.out
    assert "report.sales" in ended.err


@pytest.mark.parametrize(
    ("url", "source", "code", "words"),
    [
        (DOWN, "orders.csv", 3, "cannot be reached"),
        ("nonsense", "orders.csv", 5, "broker URL"),
        (DOWN, "missing.csv", 2, "missing.csv: No such file or directory"),
    ],
)
async def test_what_keeps_it_from_starting_is_a_line_and_an_exit_code(
    tmp_path: Path, url: str, source: str, code: int, words: str
) -> None:
    a_file(tmp_path, *GOOD)
    ended = await submit(url, tmp_path, source)
    assert ended.code == code
    assert words in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


async def test_a_wrong_password_is_refused_at_once(vhost_url: str, tmp_path: Path) -> None:
    user, _, place = vhost_url.removeprefix("amqp://").partition("@")
    ended = await submit(f"amqp://{user.split(':')[0]}:wrong@{place}", tmp_path, a_file(tmp_path, *GOOD))
    assert ended.code == 4
    assert "wrong" not in ended.err


async def test_a_file_without_the_columns_is_a_usage_error(vhost_url: str, tmp_path: Path) -> None:
    await declare(vhost_url, TOPOLOGY)
    (tmp_path / "orders.csv").write_text("order_id,name\n1,Ada\n")
    ended = await submit(vhost_url, tmp_path, "orders.csv")
    assert ended.code == 2
    assert "the first line names no column email" in ended.err


async def test_by_the_door_the_same_orders_are_the_same_jobs_and_come_once(vhost_url: str, tmp_path: Path) -> None:
    await declare(vhost_url, TOPOLOGY)
    with intake_process(vhost_url, tmp_path / "intake") as intake:
        for _ in range(2):
            options = ("--run", "july", "--door", f"http://127.0.0.1:{intake.port}", "--receipts", "receipts")
            ended = await submit(DOWN, tmp_path, a_file(tmp_path, *GOOD), *options)
            assert (ended.code, ended.err) == (0, "")
            assert "3 mails and 2 reports published, 0 bad rows" in ended.out
    receipts = [json.loads(line) for line in (tmp_path / "receipts").read_text().splitlines()]
    assert receipts[:5] == receipts[5:]
    async with foreign(vhost_url) as channel:
        mails = [await take(channel, "jobs.email") for _ in range(3)]
        reports = [await take(channel, "jobs.reports") for _ in range(2)]
    assert [mail.message_id for mail in (*mails, *reports)] == [receipt["id"] for receipt in receipts[:5]]
    assert {mail.correlation_id for mail in mails} == {"july"}
    assert await depth(vhost_url, "jobs.email") == await depth(vhost_url, "jobs.reports") == 0


async def test_what_the_door_does_not_take_is_told_and_the_rest_published(vhost_url: str, tmp_path: Path) -> None:
    await declare(vhost_url, "queues: {email: [email.*]}")
    with intake_process(vhost_url, tmp_path / "intake") as intake:
        door = f"http://127.0.0.1:{intake.port}"
        ended = await submit(DOWN, tmp_path, a_file(tmp_path, GOOD[0]), ORDERS_DOOR=door)
    assert ended.code == 7
    assert "1 mails and 0 reports published, 0 bad rows, 1 not taken" in ended.out
    assert "was not published: 503 no queue is bound to this kind" in ended.err


async def test_a_door_that_is_not_there_or_wants_another_token_is_one_line(vhost_url: str, tmp_path: Path) -> None:
    source = a_file(tmp_path, GOOD[0])
    ended = await submit(DOWN, tmp_path, source, "--door", "http://127.0.0.1:1")
    assert (ended.code, ended.err.splitlines()[-1].partition(": no answer")[0]) == (
        3,
        "orders: the door at http://127.0.0.1:1 cannot be used",
    )
    await declare(vhost_url, TOPOLOGY)
    add_token(tmp_path / "tokens.yaml", "shop", ["email.*"], [Action.PUBLISH])
    with intake_process(vhost_url, tmp_path / "intake", INTAKE_TOKENS=str(tmp_path / "tokens.yaml")) as intake:
        door = f"http://127.0.0.1:{intake.port}"
        ended = await submit(DOWN, tmp_path, source, "--door", door, ORDERS_DOOR_TOKEN="wrong")
    assert ended.code == 4
    assert ended.err.startswith(f"orders: the door at {door} refuses: 401")
    assert "wrong" not in ended.err
