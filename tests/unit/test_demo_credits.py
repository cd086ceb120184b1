"""The demo's credits: what is published, and a ledger that is read from the file and compared with it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from penstock.claims import StoreUrl
from services.credits.app import migrate
from services.demo.credits import OPENING, PAUPER, USERS, Credits
from services.demo.ledger import Entry, Ledger

GIFT = Entry("gift", None, 1, 10, "run")
MOVE = Entry("move", 1, 2, 4, "run")


def test_a_ledger_in_which_everything_is_booked_once_has_no_fault() -> None:
    ledger = Ledger([GIFT, MOVE], {1: 6, 2: 4})
    assert ledger.ids("run") == ["gift", "move"]
    assert ledger.faults([GIFT, MOVE]) == []


def test_what_is_not_booked_yet_is_no_fault_of_the_ledger() -> None:
    assert Ledger([GIFT], {1: 10}).faults([GIFT, MOVE]) == []


def test_a_balance_that_counts_a_job_twice_is_a_fault() -> None:
    assert Ledger([GIFT, GIFT], {1: 20}).faults([GIFT]) == ["user 1 has 20, not 10"]


def test_a_balance_without_an_entry_and_an_entry_without_a_balance_are_faults() -> None:
    assert Ledger([GIFT], {3: 1}).faults([GIFT]) == ["user 1 has 0, not 10", "user 3 has 1, not 0"]


def test_an_entry_that_is_not_what_was_asked_for_is_a_fault_and_so_is_the_balance_it_makes() -> None:
    faults = Ledger([replace(GIFT, amount=11)], {1: 11}).faults([GIFT])
    assert faults == ["job gift was booked otherwise than asked", "user 1 has 11, not 10"]


def test_entries_of_other_runs_belong_to_the_balances_and_not_to_the_account() -> None:
    ledger = Ledger([replace(GIFT, id="old", reason="before"), MOVE], {1: 6, 2: 4})
    assert ledger.ids("run") == ["move"]
    assert ledger.faults([MOVE]) == []


async def test_a_ledger_is_read_from_the_file_that_the_credits_service_makes(tmp_path: Path) -> None:
    path = tmp_path / "a store.db"
    await migrate(StoreUrl.parse(f"sqlite:///{path}"))
    assert Ledger.read(path) == Ledger([], {})
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("INSERT INTO credit_accounts VALUES (1, 6), (2, 4)")
        columns = "job_id, from_user, to_user, amount, reason"
        file.execute(
            f"INSERT INTO credit_entries ({columns}) VALUES ('gift', NULL, 1, 10, 'run'), ('move', 1, 2, 4, 'run')"
        )
    assert Ledger.read(path) == Ledger([GIFT, MOVE], {1: 6, 2: 4})


def test_the_credits_of_a_run_open_every_account_with_more_than_is_ever_taken_from_it() -> None:
    made = Credits.made_up("run", adds=336, transfers=60, overdrafts=4)
    assert (len(made), made.booked) == (400, 396)
    assert [entry.to_user for entry in made.opening] == list(USERS)
    assert len({entry.id for entry in (*made.opening, *made.others)}) == 400
    moves = [entry for entry in made.others if entry.from_user is not None and entry.from_user != PAUPER]
    assert len(moves) == 60
    assert all(sum(move.amount for move in moves if move.from_user == user) <= OPENING for user in USERS)
    assert all(move.from_user != move.to_user for move in moves)
