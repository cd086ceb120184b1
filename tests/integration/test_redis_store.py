"""What the Redis store owes to Redis itself: crashes, lost scripts, its own forgetting, refusals, and Lua's numbers."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import product

import pytest

from penstock.claims import Claim, Mark, Record, State, StoreUrl, Verdict, decide, new_token
from penstock.errors import ConfigError, StoreUnavailable
from penstock.stores.redis_store import RETENTION, WITHIN, RedisStore
from penstock.testing.free_ports import free_ports
from tests.support.certificates import make_certificates
from tests.support.redis import PrivateRedis, StartRedis
from tests.support.waiting import eventually

LEASE = 60_000

#: Over at once.
INSTANT = timedelta(milliseconds=1)


@asynccontextmanager
async def opened(
    url: str, *, within: timedelta = WITHIN, retention: timedelta = RETENTION, migrated: bool = False
) -> AsyncIterator[RedisStore]:
    """A store on *url*, its schema made now unless it is *migrated*."""
    store = RedisStore(StoreUrl.parse(url), within=within, retention=retention)
    try:
        if not migrated:
            await store.migrate()
        await store.open()
        yield store
    finally:
        await store.close()


@pytest.fixture
async def store(redis_url: str) -> AsyncIterator[RedisStore]:
    """A store in an empty database."""
    async with opened(redis_url) as ready:
        yield ready


def wish(job_id: str = "job-1", *, copy: int = 0, token: int | None = None, lease: int = LEASE) -> Claim:
    """A claim of the mailer's."""
    return Claim("mailer", job_id, copy, new_token() if token is None else token, lease)


async def verdict(store: RedisStore, claim: Claim) -> Verdict:
    """What *claim* is answered."""
    [answer] = await store.claim([claim])
    return answer.verdict


# --- Lua agrees with penstock.claims.decide ---------------------------------------------------------------------------

HASHES = (None, "a", "b")


async def prepare(store: RedisStore, records: Iterable[Claim], states: Iterable[State]) -> None:
    """Bring a record into every one of *states*."""
    claims = list(records)
    assert {answer.verdict for answer in await store.claim(claims)} == {Verdict.FRESH}
    pairs = zip(claims, states, strict=True)
    assert all(await store.mark([Mark(claim, state) for claim, state in pairs if state is not State.RUNNING]))


async def test_every_record_answers_every_claim_as_the_fence_says(store: RedisStore) -> None:
    records = list(product((0, 1, 2), State, HASHES, (0, LEASE)))
    wishes = list(product((0, 1, 2), HASHES, (True, False)))
    cases = list(product(records, wishes))
    held = [
        Claim("mailer", f"job-{n}", copy, new_token(), lease, args_hash)
        for n, ((copy, _, args_hash, lease), _) in enumerate(cases)
    ]
    await prepare(store, held, (state for (_, state, _, _), _ in cases))
    claims = [
        Claim("mailer", mine.job_id, copy, mine.token if own else new_token(), LEASE, args_hash)
        for mine, (_, (copy, args_hash, own)) in zip(held, cases, strict=True)
    ]
    answers = await store.claim(claims)
    for mine, claim, answer, ((_, state, _, lease), _) in zip(held, claims, answers, cases, strict=True):
        now = 1 if lease == 0 else 0  # after the lease, or before its end
        record = Record(*mine.key, mine.copy, state, mine.token, until=1, args_hash=mine.args_hash)
        assert answer.verdict is decide(record, claim, now), (record, claim)


async def test_tokens_that_differ_in_the_last_of_63_bits_are_two(store: RedisStore) -> None:
    token = 2**63 - 1
    assert float(token) == float(token - 1)
    first, second = wish(token=token), wish(token=token - 1)
    assert await verdict(store, first) is Verdict.FRESH
    assert await verdict(store, second) is Verdict.RUNNING
    assert await store.mark([Mark(second, State.DONE)]) == [False]
    assert await store.renew([second]) == [False]
    assert await verdict(store, first) is Verdict.FRESH
    [record] = await store.records("job-1")
    assert record.token == token


async def test_a_record_is_counted_once_whatever_becomes_of_it(store: RedisStore) -> None:
    claim = wish()
    await store.claim([claim])
    await store.mark([Mark(claim, State.DEAD, b'"why"')])
    assert (await store.status()).records == {"dead": 1}
    assert await verdict(store, wish(copy=1)) is Verdict.FRESH
    assert (await store.status()).records == {"running": 1}
    [record] = await store.records("job-1")
    assert record.result is None


# --- Crashes, restarts, lost scripts ----------------------------------------------------------------------------------


async def test_a_mark_answered_under_appendfsync_always_survives_a_kill_of_the_server(own_redis: StartRedis) -> None:
    server = own_redis(appendfsync="always")
    async with opened(server.url) as store:
        claim = wish()
        await store.claim([claim])
        await store.mark([Mark(claim, State.DONE, b'{"sent":true}')])
    server.kill()
    server.start()
    async with opened(server.url) as store:
        [answer] = await store.claim([wish()])
    assert (answer.verdict, answer.result) == (Verdict.DONE, b'{"sent":true}')


async def test_scripts_that_the_server_forgot_are_sent_again(redis_server: PrivateRedis, store: RedisStore) -> None:
    claim, other = wish(), wish("job-2")
    redis_server.ask("SCRIPT", "FLUSH")
    assert await verdict(store, claim) is Verdict.FRESH
    redis_server.ask("SCRIPT", "FLUSH")
    assert await store.renew([claim]) == [True]
    redis_server.ask("SCRIPT", "FLUSH")
    assert await store.mark([Mark(claim, State.DONE)]) == [True]
    await store.claim([other])
    redis_server.ask("SCRIPT", "FLUSH")
    await store.release([other])
    redis_server.ask("SCRIPT", "FLUSH")
    assert await store.expire(before=2**50, limit=1) == 1
    redis_server.ask("SCRIPT", "FLUSH")
    assert await store.forget("job-1") + await store.forget("job-2") == 1


async def test_a_server_that_is_away_is_told_at_once_and_used_again_when_it_is_back(own_redis: StartRedis) -> None:
    server = own_redis()
    async with opened(server.url) as store:
        server.stop()
        with pytest.raises(StoreUnavailable, match=f"redis://127.0.0.1:{server.port}/0: "):
            await asyncio.wait_for(store.claim([wish()]), 8)
        server.start()
        assert await verdict(store, wish()) is Verdict.FRESH


async def test_a_frozen_server_is_given_up_after_the_time_for_an_answer(own_redis: StartRedis) -> None:
    server = own_redis()
    async with opened(server.url, within=timedelta(seconds=5)) as store:
        claim = wish()
        with server.frozen(), pytest.raises(StoreUnavailable, match=r"no answer within 5 s"):
            await store.claim([claim])
        assert await verdict(store, claim) is Verdict.FRESH  # the same again, whether it happened or not
        await store.ping()


async def test_an_abandoned_call_leaves_no_answer_to_the_next_one(own_redis: StartRedis) -> None:
    server = own_redis()
    async with opened(server.url) as store:
        with server.frozen():
            calls = [asyncio.create_task(store.claim([wish(f"old-{n}")])) for n in range(20)]
            done, _ = await asyncio.wait(calls, timeout=0.2)
            assert not done
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        verdicts = await asyncio.gather(*(verdict(store, wish(f"new-{n}")) for n in range(100)))
        assert set(verdicts) == {Verdict.FRESH}
        assert [record.job_id for record in await store.records("new-7")] == ["new-7"]


async def test_a_server_that_comes_back_empty_is_refused_instead_of_believed(own_redis: StartRedis) -> None:
    server = own_redis()
    async with opened(server.url) as store:
        claim = wish()
        await store.claim([claim])
        server.ask("FLUSHALL")
        for call in (store.claim([claim]), store.mark([Mark(claim, State.DONE)]), store.ping(), store.records("job-1")):
            with pytest.raises(ConfigError, match="has no schema: run penstock store migrate"):
                await call


# --- What Redis forgets by itself -------------------------------------------------------------------------------------


async def test_redis_forgets_a_job_by_itself_and_further_claims_let_go_of_the_rest(
    redis_server: PrivateRedis, redis_url: str
) -> None:
    database = int(redis_url.rpartition("/")[2])
    async with opened(redis_url, retention=INSTANT) as store:
        await store.claim([wish(f"old-{n}", lease=1) for n in range(3)])
        await eventually(lambda: redis_server.ask("KEYS", "penstock:job:*", database=database) == "")
        await store.claim([wish("new-1"), wish("new-2")])
        assert (await store.status()).records == {"running": 2}


async def test_a_lease_that_lasts_keeps_its_job_beyond_the_retention(
    redis_server: PrivateRedis, redis_url: str
) -> None:
    database = int(redis_url.rpartition("/")[2])
    async with opened(redis_url, retention=INSTANT) as store:
        token = new_token()
        await store.claim([wish(token=token)])
        assert int(redis_server.ask("PTTL", "penstock:job:job-1", database=database)) > LEASE // 2
        assert await store.renew([wish(token=token, lease=10 * LEASE)]) == [True]
        assert int(redis_server.ask("PTTL", "penstock:job:job-1", database=database)) > 9 * LEASE
        await store.claim([wish("another")])  # lets go of what is past its retention
        assert len(await store.records("job-1")) == 1


async def test_a_job_is_kept_for_its_retention(redis_server: PrivateRedis, redis_url: str) -> None:
    database = int(redis_url.rpartition("/")[2])
    async with opened(redis_url, retention=timedelta(days=3)) as store:
        claim = wish()
        await store.claim([claim])
        await store.mark([Mark(claim, State.DONE)])
        left = timedelta(milliseconds=int(redis_server.ask("PTTL", "penstock:job:job-1", database=database)))
    assert timedelta(days=2, hours=23) < left < timedelta(days=3, minutes=2)


async def test_many_records_expire_past_those_that_a_live_lease_holds(store: RedisStore) -> None:
    await store.claim([wish(f"live-{n}") for n in range(250)])
    await store.claim([wish(f"left-{n}", lease=0) for n in range(250)])
    assert await store.expire(before=2**50, limit=30) == 30
    assert await store.expire(before=2**50, limit=1000) == 220
    assert (await store.status()).records == {"running": 250}


# --- Servers that cannot write ----------------------------------------------------------------------------------------


async def assert_unavailable(store: RedisStore, words: str) -> None:
    """Neither a claim nor a ping is answered."""
    for call in (store.claim([wish("further")]), store.ping()):
        with pytest.raises(StoreUnavailable, match=words):
            await call


async def test_a_full_memory_is_a_store_that_cannot_be_used_now(own_redis: StartRedis) -> None:
    server = own_redis()
    async with opened(server.url) as store:
        await store.claim([wish()])
        server.ask("CONFIG", "SET", "maxmemory", "1")
        await assert_unavailable(store, "maxmemory")
        assert len(await store.records("job-1")) == 1
        server.ask("CONFIG", "SET", "maxmemory", "0")
        assert await verdict(store, wish("job-2")) is Verdict.FRESH


async def test_a_replica_is_a_store_that_cannot_be_used_now(own_redis: StartRedis) -> None:
    server = own_redis()
    [nobody] = free_ports(1)
    async with opened(server.url) as store:
        server.ask("REPLICAOF", "127.0.0.1", str(nobody))
        await assert_unavailable(store, "read only replica")


async def test_a_disk_that_takes_no_more_is_a_store_that_cannot_be_used_now(own_redis: StartRedis) -> None:
    server = own_redis(save="3600 1", appendonly="no")
    async with opened(server.url) as store:
        shutil.rmtree(server.folder)
        server.ask("BGSAVE")
        await eventually(lambda: "rdb_last_bgsave_status:err" in server.ask("INFO", "persistence"))
        await assert_unavailable(store, "MISCONF")


# --- Logins and settings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", ["", ":guessed@", "somebody:secret@"])
async def test_a_refused_login_is_told_as_one_without_the_password(own_redis: StartRedis, login: str) -> None:
    server = own_redis(requirepass="secret")
    refused = server.url.replace(":secret@", login)
    with pytest.raises(ConfigError, match=f"redis://127.0.0.1:{server.port}/0: ") as caught:
        async with opened(refused):
            pass
    assert "secret" not in str(caught.value)
    assert "guessed" not in str(caught.value)
    async with opened(server.url) as store:
        await store.ping()


async def test_a_user_who_may_not_write_is_told_as_a_mistake_in_the_settings(own_redis: StartRedis) -> None:
    server = own_redis()
    async with opened(server.url):
        server.ask("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@all", "-@write")
    async with opened(server.url.replace("//", "//reader:pw@"), migrated=True) as reader:
        for call in (reader.claim([wish()]), reader.ping()):
            with pytest.raises(ConfigError, match=f"redis://127.0.0.1:{server.port}/0: "):
                await call


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"maxmemory": "100mb", "maxmemory_policy": "allkeys-lru"}, ["maxmemory-policy is allkeys-lru"]),
        ({"maxmemory": "100mb", "maxmemory_policy": "volatile-ttl"}, ["maxmemory-policy is volatile-ttl"]),
        ({"maxmemory": "100mb", "maxmemory_policy": "noeviction"}, []),
        ({"maxmemory": "0", "maxmemory_policy": "allkeys-lru"}, []),
        ({"appendonly": "no"}, ["appendonly is no"]),
        ({"appendfsync": "no"}, ["appendfsync is no"]),
        ({"appendfsync": "always"}, []),
        (
            {"maxmemory": "100mb", "maxmemory_policy": "allkeys-lfu", "appendonly": "no"},
            ["maxmemory-policy is allkeys-lfu", "appendonly is no"],
        ),
    ],
)
async def test_settings_that_lose_records_are_problems_in_production(
    own_redis: StartRedis, settings: dict[str, str], words: list[str]
) -> None:
    async with opened(own_redis(**settings).url) as store:
        problems = await store.production_problems()
    assert [word in problem for word, problem in zip(words, problems, strict=True)] == [True] * len(words)


async def test_settings_that_cannot_be_looked_into_are_a_problem_in_production(own_redis: StartRedis) -> None:
    server = own_redis()
    server.ask("ACL", "SETUSER", "worker", "on", ">pw", "~*", "+@all", "-config")
    async with opened(server.url.replace("//", "//worker:pw@")) as store:
        [problem] = await store.production_problems()
    assert problem.endswith("the store's settings cannot be looked into: let its user run CONFIG GET")


async def test_tls_is_used_and_the_certificate_verified(
    own_redis: StartRedis, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = make_certificates(tmp_path_factory.mktemp("tls"), "localhost")
    [port] = free_ports(1)
    files = {"tls_cert_file": str(made.server), "tls_key_file": str(made.key), "tls_ca_cert_file": str(made.authority)}
    own_redis(tls_port=str(port), tls_auth_clients="no", **files)
    async with opened(f"rediss://localhost:{port}/0?cafile={made.authority}") as store:
        assert await verdict(store, wish()) is Verdict.FRESH
    with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        async with opened(f"rediss://localhost:{port}/0"):
            pass


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://:secret@host/jobs", "no number of a database"),
        ("redis:///0", "the host is missing"),
        ("redis://:secret@host/0?timeout=3", "unknown option timeout"),
        ("redis://:secret@host/0?cafile=ca.pem", "option cafile needs rediss"),
        ("rediss://:secret@host/0?cafile=nowhere.pem", "cafile=nowhere.pem: No such file"),
        ("rediss://:secret@host/0?keyfile=key.pem", "option keyfile needs certfile"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_before_anything_is_connected(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        RedisStore(StoreUrl.parse(url))
    assert "secret" not in str(caught.value)
