"""The dead-letter workbench on a real broker: letters grouped, replayed, discarded, and kept in files."""

from __future__ import annotations

import asyncio
import re
import stat
from collections import Counter
from pathlib import Path
from typing import Any, Literal  # header values, JSON

import orjson
import pytest

from penstock import Handlers, Job, JobKind, Reject
from penstock.connect import broker_for, store_for
from penstock.dead_letters import DeadLetters
from penstock.errors import TopologyMismatch
from penstock.letters import Filter
from tests.support.brokers import Vhost, manage
from tests.support.letters import AUDIT, DEAD, WORK, audit, bury, dead, lying, told
from tests.support.waiting import eventually
from tests.support.working import depth, empty, foreign, put, take, working

EMAIL = ("--queue", "email")
MINUTE = 60_000


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, WORK, DEAD, AUDIT, "jobs.unrouted")


# --- looking ----------------------------------------------------------------------------------------------------------


async def test_groups_count_letters_by_what_they_died_of_and_move_none(url: str) -> None:
    ids = await bury(url, 5, **{"penstock-error": "user 5 is away", "penstock-died": 10 * MINUTE})
    await bury(url, 1, **{"penstock-error": "user 66 is away", "penstock-died": 20 * MINUTE})
    await bury(url, 2, **{"penstock-error": "the disk is full", "penstock-reason": "rejected"})
    groups = await told(url, "groups", *EMAIL)
    assert [(group["count"], group["message"], group["reason"]) for group in groups] == [
        (6, "user N is away", "exhausted"),
        (2, "the disk is full", "rejected"),
    ]
    assert (groups[0]["first"], groups[0]["last"]) == ("1970-01-01T00:10:00+00:00", "1970-01-01T00:20:00+00:00")
    listed = await told(url, "list", *EMAIL, "--group", groups[0]["group"])
    assert [letter["id"] for letter in listed] == [*ids, "0"]
    assert (await dead(url, "groups", *EMAIL)).out.splitlines()[-1] == "8 dead letters in 2 groups"
    assert await lying(url) == [*ids, "0", "0", "1"]
    assert await depth(url, AUDIT) == 0, "who only looks leaves no trace"


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--text", "MÜNCHEN"), ["1"]),
        (("--text", "mailbox"), ["2"]),
        (("--attempt", "2"), ["3"]),
        (("--newer-than", "1h"), ["4"]),
        (("--older-than", "1d"), ["1", "2", "3"]),
        (("2", "4", "5"), ["2", "4"]),
        (("--copy", "7"), ["4"]),
        (("--kind", "email.*", "--limit", "2"), ["1", "2"]),
        (("--reason", "exhausted", "--text", "nothing like it"), []),
    ],
)
async def test_a_list_takes_what_its_filters_take(url: str, words: tuple[str, ...], found: list[str]) -> None:
    now = 4_000_000_000_000  # far ahead: whatever the clock says, it is newer than an hour
    async with foreign(url) as channel:
        for number, body, headers in (
            (1, b'{"city": "M\\u00fcnchen"}', {"penstock-died": 5}),
            (2, b"{}", {"penstock-error": "No Mailbox", "penstock-died": 5}),
            (3, b"{}", {"penstock-attempt": 2, "penstock-died": 5}),
            (4, b"{}", {"penstock-copy": 7, "penstock-died": now}),
        ):
            story = {"penstock-reason": "exhausted", **headers}
            await put(channel, WORK, body, "jobs.dead", message_id=str(number), type="email.send", headers=story)
    assert [letter["id"] for letter in await told(url, "list", *EMAIL, *words)] == found


async def test_secrets_are_not_shown_unless_asked_for(url: str) -> None:
    body = b'{"to": "ada", "password": "hunter2", "iban": "DE12", "next": [{"api_key": "k-1"}]}'
    headers = {"authorization": "Bearer t-1", "tenant": "acme", "penstock-error": "amqp://u:pw-1@host/ refused"}
    async with foreign(url) as channel:
        await put(channel, WORK, body, "jobs.dead", message_id="s", headers=headers)
    hidden = ("hunter2", "DE12", "k-1", "t-1", "pw-1")
    for words in (("show", "s", *EMAIL), ("show", "s", *EMAIL, "--json")):
        shown = await dead(url, *words, PENSTOCK_REDACT="iban, other")
        assert [secret for secret in hidden if secret in shown.out] == []
        assert "acme" in shown.out
        revealed = await dead(url, *words, "--reveal", PENSTOCK_REDACT="iban")
        assert [secret for secret in hidden if secret not in revealed.out] == []


async def test_whatever_a_letter_holds_it_is_shown_harmlessly_and_in_bounds(url: str) -> None:
    evil = "\x1b[2J\r\n<script>alert(1)</script>\u202e" + "x" * 20_000
    async with foreign(url) as channel:
        headers = {"penstock-error": evil, "penstock-error-type": evil[:200], "penstock-history": [evil[:300]]}
        await put(channel, WORK, b'"' + b"x" * 1024 * 1024 + b'"', "jobs.dead", message_id="evil", headers=headers)
        await put(channel, WORK, b"[" * 200_000, "jobs.dead", message_id="deep", type="email.\x1b[2J")
    for words in (("groups",), ("list",), ("show", "evil"), ("show", "deep")):
        seen = await dead(url, *words, *EMAIL)
        assert seen.code == 0, seen.err
        assert seen.out.replace("\n", "").isprintable()
        assert len(seen.out) < 20_000
        assert (await dead(url, *words, *EMAIL, "--json")).code == 0


# --- replay -----------------------------------------------------------------------------------------------------------


async def test_a_job_replayed_three_times_in_vain_stays_until_somebody_insists(url: str) -> None:
    await bury(url, 2, **{"penstock-replays": 3})
    refused = await dead(url, "replay", *EMAIL)
    assert refused.code == 7
    assert "0, 1: it was replayed 3 times and died each time" in refused.out
    assert "--force" in refused.out
    assert (await told(url, "replay", *EMAIL, "--force"))["replayed"] == 2
    async with foreign(url) as channel:
        assert (await take(channel, WORK)).headers["penstock-replays"] == 4


async def test_letters_that_are_nobodys_job_are_not_replayed(url: str) -> None:
    async with foreign(url) as channel:
        await put(channel, WORK, b"\xff\x00", "jobs.dead", message_id="bytes", type="email.send")
        await put(channel, WORK, b"{}", "jobs.dead", message_id="kind", type="No Kind!")
        await put(channel, WORK, b"{}", "jobs.dead", message_id="fine", type="email.send")
    done = await dead(url, "replay", *EMAIL, "--json")
    assert done.code == 7
    assert orjson.loads(done.out)["replayed"] == 1
    assert {letter["id"] for letter in orjson.loads(done.out)["stayed"]} == {"bytes", "kind"}
    assert await lying(url) == ["bytes", "kind"]


async def test_replaying_everything_has_to_be_said(url: str) -> None:
    refused = await dead(url, "replay")
    assert (refused.code, "--all" in refused.err) == (2, True)


async def test_two_replays_at_once_replay_each_letter_once(url: str) -> None:
    ids = await bury(url, 600)
    async with DeadLetters(broker_for(url)) as one, DeadLetters(broker_for(url)) as other:
        results = await asyncio.gather(one.replay(DEAD), other.replay(DEAD))
    assert sum(result.done for result in results) == 600
    assert Counter(await lying(url, WORK)) == Counter(ids)
    assert await depth(url, DEAD) == 0


def failing(broken: asyncio.Event, ran: list[int], once: Literal["lease"] | None = None) -> Handlers:
    """A handler that rejects every job while *broken* is set."""
    handlers = Handlers()

    @handlers.on(JobKind("email.odd", dict), once=once)
    @handlers.on(JobKind("email.even", dict), once=once)
    async def work(job: Job[dict[str, Any]]) -> None:
        ran.append(job.args["n"])
        if broken.is_set():
            raise Reject("still broken")

    return handlers


async def test_canaries_that_die_again_keep_the_others_back_and_those_that_do_not_let_them_go(url: str) -> None:
    await bury(url, 30)
    broken, ran = asyncio.Event(), list[int]()
    broken.set()
    async with working(url, failing(broken, ran)):
        stopped = await dead(url, "replay", *EMAIL, "--canary", "3", "--wait", "30s")
        assert stopped.code == 6, stopped.err
        assert "1 died again" in stopped.out or "3 died again" in stopped.out or "2 died again" in stopped.out
        assert "still broken" in stopped.out
        await eventually(lambda: _holds(url, DEAD, 30))
        assert sorted(ran) == [0, 1, 2]
        broken.clear()
        done = await told(url, "replay", *EMAIL, "--canary", "3", "--wait", "1s")
        assert done["replayed"] == 30
        assert {canary["fate"] for canary in done["canaries"][DEAD].values()} == {"not seen again"}
        await eventually(lambda: len(ran) == 33)


async def _holds(url: str, queue: str, count: int) -> bool:
    return await depth(url, queue) == count


async def test_a_store_says_of_canaries_that_they_are_done_without_waiting(url: str, tmp_path: Path) -> None:
    await bury(url, 10)
    where = f"sqlite:///{tmp_path}/store.db"
    store = store_for(where)
    await store.migrate()
    async with working(url, failing(asyncio.Event(), [], once="lease"), store=store):
        done = await told(url, "replay", *EMAIL, "--canary", "2", "--wait", "1h", "--store-url", where)
    assert done["replayed"] == 10
    assert {canary["fate"] for canary in done["canaries"][DEAD].values()} == {"done"}


async def test_canaries_that_a_store_knows_and_that_have_not_ended_keep_the_others_back(
    url: str, tmp_path: Path
) -> None:
    await bury(url, 5)
    where = f"sqlite:///{tmp_path}/store.db"
    store = store_for(where)
    await store.migrate()
    handlers, go = Handlers(), asyncio.Event()

    @handlers.on(JobKind("email.even", dict), once="lease")
    async def slow(_: Job[dict[str, Any]]) -> None:
        await go.wait()

    async with working(url, handlers, store=store):
        words = ("--canary", "1", "--wait", "5s", "--kind", "email.even", "--store-url", where)
        stopped = await dead(url, "replay", *EMAIL, *words, "--json")
        go.set()
    assert stopped.code == 6, stopped.err
    assert orjson.loads(stopped.out)["canaries"][DEAD]["0"]["fate"] == "not ended yet"
    assert orjson.loads(stopped.out)["replayed"] == 1


# --- discard, audit, files --------------------------------------------------------------------------------------------


async def test_a_discard_needs_a_filter_and_a_reason_and_the_audit_keeps_what_went(url: str) -> None:
    ids = await bury(url, 4)
    assert "name a filter" in (await dead(url, "discard", *EMAIL, "--because", "x")).err
    assert "--because" in (await dead(url, "discard", *EMAIL, "--kind", "email.odd")).err
    done = await told(url, "discard", *EMAIL, "--kind", "email.odd", "--because", "customer left")
    assert done["discarded"] == 2
    [begins, ends] = await told(url, "audit")
    assert (begins["ids"], begins["filter"], begins["queue"]) == (["1", "3"], {"kind": "email.odd"}, DEAD)
    assert begins["because"] == ends["because"] == "customer left"
    assert re.fullmatch(r".+@.+ as .+", begins["who"])
    shown = (await dead(url, "audit")).out
    assert "discard begins  jobs.email.dead  2  kind=email.odd  customer left" in shown
    assert await lying(url) == ids[::2]


async def test_nothing_is_done_that_the_audit_cannot_keep(vhost: Vhost) -> None:
    from tests.support.working import declare

    await declare(vhost.url)
    await bury(vhost.url, 3)
    manage(vhost.broker, "DELETE", f"/api/queues/{vhost.name}/{AUDIT}")
    async with DeadLetters(broker_for(vhost.url)) as letters:
        for doing in (letters.replay(DEAD), letters.discard(DEAD, because="x")):
            with pytest.raises(TopologyMismatch, match="penstock topology apply"):
                await doing
    assert await lying(vhost.url) == ["0", "1", "2"]


async def test_exported_letters_come_back_as_they_were_and_only_once(url: str, tmp_path: Path) -> None:
    await bury(url, 5, **{"tenant": "acme", "penstock-copy": 3})
    async with foreign(url) as channel:
        await put(channel, WORK, b"\xff\xfe", "jobs.dead", message_id="bytes")
        await put(channel, "jobs.unrouted", b"{}", "jobs.dead", message_id="lost", type="emial.send")
    before = await told(url, "show", "3", *EMAIL)
    file = tmp_path / "letters.ndjson"
    topology = tmp_path / "topology.yaml"
    topology.write_text("queues: {email: [email.*]}")
    said = await dead(url, "export", "--output", str(file), PENSTOCK_TOPOLOGY=str(topology))
    assert (said.code, said.out) == (0, "7 dead letters exported\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (await told(url, "import", str(file))) == {"imported": 0, "there": 7, "failed": []}
    await empty(url, DEAD, "jobs.unrouted")
    assert (await told(url, "import", str(file))) == {"imported": 7, "there": 0, "failed": []}
    after = await told(url, "show", "3", *EMAIL)
    assert after[0]["headers"].pop("penstock-seq") > 0  # by which returns are matched, and no part of the letter
    assert after == before
    assert await lying(url) == ["0", "1", "2", "3", "4", "bytes"]
    assert await lying(url, "jobs.unrouted") == ["lost"]
    actions = Counter(entry["action"] for entry in await audit(url))
    assert actions == {"export": 2, "import": 4}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("no json", "line 2: not a dead letter of penstock dead export"),
        ('{"queue": "jobs.email", "body": "{}", "headers": {}}', "line 2: 'jobs.email' is no dead-letter queue"),
        ('{"queue": "jobs.gone.dead", "body": "{}", "headers": {}}', "jobs.gone.dead"),
    ],
)
async def test_a_file_with_a_bad_line_puts_nothing_back(url: str, tmp_path: Path, line: str, why: str) -> None:
    good = '{"queue": "jobs.email.dead", "body": "{}", "headers": {}, "message_id": "good"}'
    file = tmp_path / "letters.ndjson"
    file.write_text(f"{good}\n{line}\n")
    refused = await dead(url, "import", str(file))
    assert (refused.code in (2, 5), why in refused.err) == (True, True), refused.err
    assert await depth(url, DEAD) == 0


# --- who may, and what is away ----------------------------------------------------------------------------------------


async def test_a_user_with_the_role_operator_may_do_all_of_it(vhost: Vhost, tmp_path: Path) -> None:
    from penstock.topology.access import access
    from penstock.topology.build import build
    from penstock.topology.reading import parse_spec
    from tests.support.working import declare

    spec = parse_spec("queues: {email: [email.*]}\nusers: {hand: {role: operator}}")
    await declare(vhost.url, build(spec))
    may = access(spec, spec.users[0])
    user = f"hand-{vhost.name}"
    manage(vhost.broker, "PUT", f"/api/users/{user}", {"password": "pw", "tags": ""})
    permissions = {"configure": may.configure, "write": may.write, "read": may.read}
    manage(vhost.broker, "PUT", f"/api/permissions/{vhost.name}/{user}", permissions)
    for exchange, keys in may.topics.items():
        topic = {"exchange": exchange, "write": keys, "read": ".*"}
        manage(vhost.broker, "PUT", f"/api/topic-permissions/{vhost.name}/{user}", topic)
    url = vhost.url.replace(f"{vhost.broker.user}:{vhost.broker.password}@", f"{user}:pw@")
    await bury(vhost.url, 5)
    file = str(tmp_path / "letters")
    for words in (
        ("list", *EMAIL),
        ("export", *EMAIL, "--output", file),
        ("edit", "0", *EMAIL, "--args", '{"n": 9}', "--no-check"),
        ("replay", *EMAIL, "1", "2"),
        ("discard", *EMAIL, "3", "--because", "test"),
        ("import", file),
        ("audit",),
    ):
        done = await dead(url, *words)
        assert done.code == 0, (words, done.err)
    manage(vhost.broker, "DELETE", f"/api/users/{user}")
    assert len(await lying(vhost.url, WORK)) == 2


async def test_dead_letters_need_no_management_api(url: str) -> None:
    await bury(url, 1)
    at = "http://nobody:wrong@127.0.0.1:1"
    assert len(await told(url, "list", *EMAIL, RABBITMQ_MANAGEMENT_URL=at)) == 1
    assert (await told(url, "replay", *EMAIL, RABBITMQ_MANAGEMENT_URL=at))["replayed"] == 1


async def test_what_is_away_or_refused_is_said_in_a_line_with_its_code(url: str) -> None:
    away = await dead("amqp://127.0.0.1:1/", "list", *EMAIL, PENSTOCK_CONNECT_TIMEOUT="0.2")
    assert away.code == 3
    user = url.split("//")[1].split(":")[0]
    refused = await dead(url.replace(f"{user}:", f"{user}:x"), "replay", *EMAIL)
    assert (refused.code, "Traceback" in refused.err) == (4, False)
    gone = await dead(url, "discard", "--queue", "nothing", "--kind", "a.b", "--because", "x")
    assert (gone.code, "jobs.nothing.dead" in gone.err) == (5, True)


async def test_a_discarded_letter_of_one_mebibyte_and_its_replay(url: str) -> None:
    body = b'{"text": "' + b"x" * (1024 * 1024 - 20) + b'"}'
    async with foreign(url) as channel:
        for name in ("one", "two"):
            await put(channel, WORK, body, "jobs.dead", message_id=name, type="email.send")
    async with DeadLetters(broker_for(url)) as letters:
        assert (await letters.replay(DEAD, Filter(ids=frozenset(["one"])))).done == 1
        assert (await letters.discard(DEAD, because="large")).done == 1
    async with foreign(url) as channel:
        assert (await take(channel, WORK)).body == body
