"""Jobs of credits and the ledger they are booked in, on a real SQLite file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from penstock import Job, Reject, SchemaError
from penstock.claims import StoreUrl
from penstock.connect import store_for
from penstock.storing import EffectStore
from penstock_jobs import CREDIT_ADD, CREDIT_TRANSFER, KINDS, CreditAdd, CreditTransfer
from services.credits import handlers, ledger
from services.credits.app import main, migrate
from tests.support.stores import opened

LARGEST = 1_000_000_000


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EffectStore]:
    """A store with a ledger."""
    url = StoreUrl.parse(f"sqlite:///{tmp_path}/store.db")
    await migrate(url)
    async with opened(url) as store:
        yield store


async def add(store: EffectStore, user: int, amount: int, job_id: str = "add") -> int:
    async with store.effect() as effect:
        return await ledger.add(effect.transaction, job_id, user, amount, None)


async def transfer(store: EffectStore, from_: int, to: int, amount: int) -> int:
    async with store.effect() as effect:
        return await ledger.transfer(effect.transaction, "move", from_, to, amount, "why")


async def balances(store: EffectStore, *users: int) -> list[int]:
    async with store.effect() as effect:
        return [await ledger.balance(effect.transaction, user) for user in users]


async def entries(store: EffectStore) -> list[tuple[object, ...]]:
    async with store.effect() as effect:
        statement = "SELECT job_id, from_user, to_user, amount, reason FROM credit_entries"
        return (await effect.transaction.execute(statement)).fetchall()


async def test_a_balance_is_the_sum_of_what_was_added(store: EffectStore) -> None:
    assert [await add(store, 123, 5, f"{n}") for n in range(3)] == [5, 10, 15]
    assert await balances(store, 123, 124) == [15, 0]
    assert await entries(store) == [(f"{n}", None, 123, 5, None) for n in range(3)]


async def test_a_job_that_is_booked_twice_shows_as_two_entries(store: EffectStore) -> None:
    for _ in range(2):
        await add(store, 123, 5, "same")
    assert len(await entries(store)) == 2


@pytest.mark.parametrize(("giver", "taker"), [(1, 2), (2, 1)])
async def test_a_transfer_moves_credits_also_to_a_user_who_had_none(store: EffectStore, giver: int, taker: int) -> None:
    await add(store, giver, 10)
    assert await transfer(store, giver, taker, 4) == 6
    assert await balances(store, giver, taker) == [6, 4]
    assert (await entries(store))[-1] == ("move", giver, taker, 4, "why")


async def test_everything_can_be_given_away(store: EffectStore) -> None:
    await add(store, 1, LARGEST)
    assert await transfer(store, 1, 2, LARGEST) == 0
    assert await balances(store, 1, 2) == [0, LARGEST]


@pytest.mark.parametrize(("giver", "taker", "has"), [(1, 2, 10), (2, 1, 10), (3, 1, 0)])
async def test_more_than_there_is_cannot_be_moved_and_nothing_changes(
    store: EffectStore, giver: int, taker: int, has: int
) -> None:
    if has:
        await add(store, giver, has)
    with pytest.raises(ledger.Overdrawn, match=f"user {giver} has {has}, not 11"):
        await transfer(store, giver, taker, 11)
    assert await balances(store, giver, taker) == [has, 0]
    assert [job_id for job_id, *_ in await entries(store) if job_id == "move"] == []


async def test_a_transfer_that_would_overdraw_is_rejected_for_good(store: EffectStore) -> None:
    job = Job("move", "credit.transfer", CreditTransfer(from_=1, to=2, amount=5))
    with pytest.raises(Reject, match="user 1 has 0, not 5"):
        async with store.effect() as effect:
            await handlers.transfer(job, effect.transaction)
    assert await entries(store) == []


async def test_the_tables_are_made_once_and_left_alone_after_that(tmp_path: Path) -> None:
    url = StoreUrl.parse(f"sqlite:///{tmp_path}/store.db")
    await migrate(url)
    store = store_for(url)
    assert isinstance(store, EffectStore)
    await store.open()
    await add(store, 1, 1)
    await migrate(url)
    assert await balances(store, 1) == [1]
    await store.close()


def test_the_command_makes_the_tables_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_URL", f"sqlite:///{tmp_path}/made/store.db")
    assert (main(["migrate"]), main(["migrate"])) == (0, 0)
    assert (tmp_path / "made/store.db").exists()
    assert "the ledger is ready in sqlite://" in capsys.readouterr().out


def test_a_store_without_transactions_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_STORE_URL", "redis://user:secret@127.0.0.1:1/0")
    assert main(["migrate"]) == 5
    told = capsys.readouterr().err
    assert told.startswith("credits: redis://127.0.0.1:1/0 cannot hold a ledger")
    assert "secret" not in told
    assert told.count("\n") == 1


def test_a_transfer_is_written_with_the_words_of_the_wire() -> None:
    args = CreditTransfer(from_=1, to=2, amount=3)
    assert CREDIT_TRANSFER.encode(args) == b'{"from":1,"to":2,"amount":3,"reason":null}'
    assert CREDIT_TRANSFER.decode(b'{"from": 1, "to": 2, "amount": 3}') == args
    assert set(CREDIT_TRANSFER.schema()["properties"]) == {"from", "to", "amount", "reason"}


@pytest.mark.parametrize(
    "body",
    [
        '{"user": 1}',
        '{"user": 1, "amount": 0}',
        '{"user": 1, "amount": -5}',
        '{"user": 1, "amount": 1000000001}',
        '{"user": 1, "amount": 1.5}',
        '{"user": 1, "amount": "5"}',
        '{"user": 1, "amount": true}',
        '{"user": 0, "amount": 5}',
        '{"user": 9007199254740992, "amount": 5}',
        '{"user": 1, "amount": 5, "reason": ""}',
        '{"user": 1, "amount": 5, "reason": "a\\u0000b"}',
    ],
)
def test_what_is_no_sane_gift_does_not_fit_the_kind(body: str) -> None:
    with pytest.raises(SchemaError):
        CREDIT_ADD.decode(body.encode())


def test_nobody_transfers_to_himself() -> None:
    with pytest.raises(SchemaError, match="from and to are the same user"):
        CREDIT_TRANSFER.decode(b'{"from": 1, "to": 1, "amount": 3}')


def test_the_largest_sane_gift_fits() -> None:
    largest = CreditAdd(user=2**53 - 1, amount=LARGEST, reason="é" * 200)
    assert CREDIT_ADD.decode(CREDIT_ADD.encode(largest)) == largest


def test_both_kinds_are_in_the_catalogue_and_have_a_handler_that_is_given_its_transaction() -> None:
    kinds = {handler.kind.name: handler.once for handler in handlers.handlers}
    assert kinds == {"credit.add": "effect", "credit.transfer": "effect"}
    assert kinds.keys() <= {kind.name for kind in KINDS}
