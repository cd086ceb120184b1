"""Runs on PostgreSQL whose claims are a part of their effects' transactions: seen meanwhile, ended when told to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest

from penstock import Handlers, Job, JobKind, Results, Transaction
from penstock.claims import Answer, State, UnderWay, Verdict
from penstock.connect import store_for
from penstock.errors import ConfigError, StoreUnavailable
from penstock.events import JobFinished
from penstock.stores import postgres_runs
from penstock.stores.postgres import PostgresStore
from penstock.storing import OwnEffect, standing
from services.intake.jobs_seen import JobsSeen
from services.intake.tokens import Action, Client
from tests.conformance.store_steps import claim_of, ended, verdict_of
from tests.support.accounts import ADD, credit, opened
from tests.support.commands import penstock_here
from tests.support.postgres import PrivatePostgres
from tests.support.waiting import eventually
from tests.support.working import foreign, put, working

READER = Client("board", ("#",), frozenset({Action.READ}))


@asynccontextmanager
async def running(store: PostgresStore, job_id: str = "job", copy: int = 0) -> AsyncIterator[OwnEffect]:
    """The effect of a job, under way."""
    effect = await store.begin(claim_of(job_id, copy=copy))
    assert not isinstance(effect, Answer), effect.verdict
    async with effect:
        await effect.transaction.execute(ADD)
        yield effect


async def states(store: PostgresStore, job_id: str = "job") -> list[tuple[str, State]]:
    """Where a job stands at each consumer."""
    return [(each.consumer, each.state) for each in await standing(store, job_id)]


async def test_a_job_is_running_from_its_claim_to_its_commit(postgres_url: str) -> None:
    async with opened(postgres_url) as store, Results(store) as results:
        before = time.time_ns() // 1_000_000
        async with running(store) as effect:
            assert await store.records("job") == []
            [run] = await store.under_way("job")
            assert run == UnderWay("credits", "job", run.claimed)
            assert run.claimed is not None
            assert before - 1000 <= run.claimed <= time.time_ns() // 1_000_000 + 1000
            assert await states(store) == [("credits", State.RUNNING)]
            assert await states(store, "other") == []
            known = await results.get("job")
            assert known is not None
            assert (known.state, known.value, known.ended) == (State.RUNNING, None, False)
            assert await results.get("job", consumer="email") is None
            seen = {"queue": "credits", "state": "running", "copy": None, "result": None}
            assert await JobsSeen(store, None, ()).look("job", READER) == {"id": "job", **seen, "queues": [seen]}
            assert await effect.complete(claim_of(), b"5")
        assert await store.under_way("job") == []
        assert await states(store) == [("credits", State.DONE)]


async def test_a_copy_that_runs_again_is_running_whatever_became_of_the_one_before(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        for state in (State.MOVED, State.DEAD):
            await ended(store, claim_of(state), state)
            assert await states(store, state) == [("credits", state)]
            async with running(store, state, copy=1):
                assert await states(store, state) == [("credits", State.RUNNING)]


async def test_the_command_shows_a_run_and_forgets_it(postgres_url: str) -> None:
    async with opened(postgres_url) as store:

        async def lose() -> None:
            async with running(store) as effect:
                shown = await asyncio.to_thread(penstock_here, "store", "show", "job", PENSTOCK_STORE_URL=postgres_url)
                words = [line.split()[:2] for line in shown.out.splitlines()]
                assert words[:3] == [["job_id", "job"], ["consumer", "credits"], ["state", "running"]]
                assert (words[3][0], len(words)) == ("claimed", 4)
                gone = await asyncio.to_thread(penstock_here, "store", "forget", "job", PENSTOCK_STORE_URL=postgres_url)
                assert (gone.code, gone.out) == (0, "1 record forgotten\n")
                await effect.complete(claim_of(), None)

        with pytest.raises(StoreUnavailable):
            await lose()
        assert (credit(postgres_url), await states(store)) == (0, [])
        assert await verdict_of(store, claim_of()) is Verdict.FRESH


async def test_a_run_about_to_end_is_let_end_and_forgotten_then(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_runs, "GRACE", 60)
    monkeypatch.setattr(postgres_runs, "AT_LONGEST", 60)
    async with opened(postgres_url) as store:
        async with running(store) as effect:
            forgetting = asyncio.create_task(store.forget("job"))
            await eventually(lambda: _tried_to_lock(postgres_url))
            assert await effect.complete(claim_of(), None)
        assert await forgetting == 1
        assert (credit(postgres_url), await states(store)) == (5, [])


def _tried_to_lock(url: str) -> bool:
    with psycopg.connect(url) as outside:
        trying = "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%bool_or%'"
        return outside.execute(trying).fetchone() is not None


async def test_of_two_who_forget_a_run_at_once_one_ends_it_and_neither_the_other(postgres_url: str) -> None:
    async with opened(postgres_url) as store, opened(postgres_url) as other:

        async def lose() -> None:
            async with running(store):
                assert sorted(await asyncio.gather(store.forget("job"), other.forget("job"))) == [0, 1]

        with suppress(psycopg.Error, StoreUnavailable):
            await lose()
        assert (credit(postgres_url), await states(store)) == (0, [])


async def test_a_run_is_found_by_its_own_consumer_among_those_of_others(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        claims = [claim_of(consumer=consumer) for consumer in ("credits", "it's")]
        for claim in claims:
            effect = await store.begin(claim)
            assert not isinstance(effect, Answer)
            async with effect:
                assert (claim.consumer, State.RUNNING) in await states(store)
                assert len(await store.under_way("job")) == 1
                assert await effect.complete(claim, None)


async def test_a_run_that_does_not_end_is_said_so(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_runs, "GRACE", 60)
    monkeypatch.setattr(postgres_runs, "AT_LONGEST", 0.1)
    async with opened(postgres_url) as store:
        async with running(store) as effect:
            with pytest.raises(StoreUnavailable, match="told to end, and has not"):
                await store.forget("job")
            assert await effect.complete(claim_of(), None)
        assert await store.forget("job") == 1


async def test_runs_of_another_user_are_seen_and_left_alone(
    postgres_url: str, postgres_server: PrivatePostgres
) -> None:
    postgres_server.execute("CREATE ROLE clerk LOGIN")
    try:
        async with opened(postgres_url) as store:
            with psycopg.connect(postgres_url, autocommit=True) as owner:
                owner.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk")
            clerk = store_for(postgres_url.replace("postgres@", "clerk@"))
            assert isinstance(clerk, PostgresStore)
            await clerk.open()
            async with running(store) as effect:
                assert await clerk.under_way("job") == [UnderWay("credits", "job", None)]
                with pytest.raises(ConfigError, match="another database user"):
                    await clerk.forget("job")
                assert await effect.complete(claim_of(), None)
            assert await clerk.forget("job") == 1
            await clerk.close()
    finally:
        with psycopg.connect(postgres_url, autocommit=True) as owner:
            owner.execute("DROP OWNED BY clerk")
        postgres_server.execute("DROP ROLE clerk")


async def test_a_forgotten_run_runs_again_its_effect_happens_once_and_no_attempt_is_lost(
    url: str, postgres_url: str
) -> None:
    handlers, attempts, gate = Handlers(), list[int](), asyncio.Event()

    @handlers.on(JobKind("email.send", dict), once="effect")
    async def send(job: Job[dict[str, object]], tx: Transaction) -> None:
        await tx.execute(ADD)
        attempts.append(job.attempt)
        if len(attempts) == 1:
            await gate.wait()

    async with opened(postgres_url) as store:
        async with foreign(url) as channel, working(url, handlers, store=store_for(postgres_url)) as worker:
            await put(channel, "email.send", b"{}", message_id="job")
            await eventually(lambda: attempts)
            assert await store.forget("job") == 1
            gate.set()
            await worker.until(JobFinished, 2)
        assert attempts == [1, 1]
        assert credit(postgres_url) == 5
