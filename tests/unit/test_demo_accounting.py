"""The demo's account: pure sums over what was published, done and dead, and readers that miss nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import DecodeError, MessageError, SchemaError
from penstock_jobs import KINDS, SEND_EMAIL
from services.demo import order_book
from services.demo.accounting import Letter, account, piles
from services.demo.effects import Book, reports
from services.demo.sink import REFUSED_DOMAIN
from services.demo.trouble import bad_messages
from services.orders.reading import BadRow, Row, rows

IDS = st.lists(st.sampled_from([f"id-{n}" for n in range(8)]))


def test_a_run_in_which_every_job_ended_once() -> None:
    found = account({"a", "b", "c"}, ["a", "b"], ["c"])
    assert found.line == "accounted: 3 published = 2 done + 1 dead; lost 0; doubled 0 (credits: 0 done, doubled 0)"
    assert found.right


def test_a_job_without_effect_and_without_letter_is_lost() -> None:
    found = account({"a", "b"}, ["a"], [])
    assert found.lost == ("b",)
    assert found.line == "accounted: 2 published = 1 done + 0 dead; lost 1; doubled 0 (credits: 0 done, doubled 0)"
    assert not found.right


def test_an_effect_too_many_is_doubled_and_covers_no_loss() -> None:
    found = account({"a", "b"}, ["a", "a"], [])
    assert (found.doubled, found.lost) == (1, ("b",))


def test_a_mail_that_was_sent_twice_is_no_fault() -> None:
    found = account({"a"}, ["a", "a"], [])
    assert (found.doubled, found.right) == (1, True)


def test_a_credit_that_was_booked_twice_is_one() -> None:
    found = account({"a", "b", "c"}, ["c", "c"], [], ["a", "a", "b"])
    assert found.line == "accounted: 3 published = 3 done + 0 dead; lost 0; doubled 2 (credits: 2 done, doubled 1)"
    assert not found.right


def test_every_effect_in_its_place_is_not_enough_when_balances_are_wrong() -> None:
    assert account({"a"}, [], [], ["a"]).right
    assert not account({"a"}, [], [], ["a"], ["user 1 has 2, not 1"]).right


def test_a_job_that_is_done_and_dead_counts_once_as_done() -> None:
    found = account({"a"}, ["a"], ["a"])
    assert (found.done, found.dead, found.doubled) == (1, 0, 1)


def test_what_nobody_published_is_strange_and_covers_no_loss() -> None:
    found = account({"a"}, ["x"], ["y"])
    assert (found.strange, found.lost) == (("x", "y"), ("a",))


@given(st.sets(st.sampled_from([f"id-{n}" for n in range(8)])), IDS, IDS, IDS)
def test_every_published_job_is_done_dead_or_lost_and_everything_found_is_explained(
    published: set[str], effects: list[str], letters: list[str], entries: list[str]
) -> None:
    found = account(published, effects, letters, entries)
    assert found.published == found.done + found.dead + len(found.lost)
    assert len(effects) + len(letters) + len(entries) == found.done + found.dead + len(found.strange) + found.doubled


def test_letters_are_piled_by_queue_reason_and_error() -> None:
    letters = [Letter(f"id-{n}", "run", "q.dead", "rejected", "550 no") for n in range(3)]
    found = piles([*letters, Letter("id-9", "run", "q.dead", "schema", "to: missing")])
    assert [(pile.reason, pile.count, pile.example) for pile in found] == [
        ("rejected", 3, "id-0"),
        ("schema", 1, "id-9"),
    ]


def test_a_book_reads_on_where_it_ended_and_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "book"
    book = Book(path, "run")
    assert book.ids() == []
    with path.open("a") as file:
        file.write('{"id": "a", "run": "run"}\n{"id": "b", "run": "other"}\n{"id": "c", ')
        file.flush()
        for _ in range(2):
            assert book.ids() == ["a"]
        file.write('"run": "run"}\n{"id": "a", "run": "run"}\n')
    assert book.ids() == ["a", "c", "a"]


def test_only_a_whole_report_is_done(tmp_path: Path) -> None:
    whole, torn, alone = (f"0198f7c2-0000-7000-8000-00000000000{n}" for n in range(3))
    for name, end in ((whole, b"\n%%EOF\n"), (torn, b"")):
        (tmp_path / f"north-west-{name}.csv").touch()
        (tmp_path / f"north-west-{name}.pdf").write_bytes(b"%PDF-1.4" + end)
    (tmp_path / f"south-{alone}.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    assert reports(tmp_path) == [whole]
    assert reports(tmp_path / "missing") == []


def test_the_order_book_has_every_region_some_refused_addresses_and_lines_that_are_no_orders(tmp_path: Path) -> None:
    order_book.write(tmp_path / "orders.csv", 294, "run-1")
    with (tmp_path / "orders.csv").open("rb") as file:
        found = list(rows(file))
    orders = [row.order for row in found if isinstance(row, Row)]
    assert len(orders) == 294
    assert {order.region for order in orders} == set(order_book.REGIONS)
    assert len({order.order_id for order in orders}) == 294
    assert sum(order.email.endswith(f"@{REFUSED_DOMAIN}") for order in orders) == 6
    assert len([row for row in found if isinstance(row, BadRow)]) == 3
    assert next(csv.reader((tmp_path / "orders.csv").read_text().splitlines()))[0] == "order_id"


def test_every_bad_message_is_one_that_no_worker_can_run() -> None:
    handled = {kind.name for kind in KINDS}
    errors: list[type[MessageError]] = []
    for bad in bad_messages(1):
        if bad.kind in handled:
            with pytest.raises(MessageError) as caught:
                SEND_EMAIL.decode(bad.body)
            errors.append(caught.type)
        else:
            assert json.loads(bad.body) is not None
    assert errors == [DecodeError] * 4 + [SchemaError] * 4
    assert {bad.kind for bad in bad_messages(1)} - handled == {"email.sned", "report.sails"}
