"""What the janitor deletes from real databases, and what it leaves alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from penstock import Job, Reject
from penstock.claims import StoreUrl
from penstock_jobs import PURGE_EXPIRED, PurgeExpired
from services.credits.app import migrate as migrate_credits
from services.janitor.handlers import Answer, Janitor
from services.janitor.rules import MARKS, read_rules
from services.janitor.settings import RULES as SHIPPED
from services.mailer.command import migrate as migrate_mailer
from tests.support.expiring import (
    FRESH,
    OLD,
    RULES,
    a_janitor,
    count,
    insert,
    instant,
    looking,
    run,
    things,
    with_things,
)
from tests.support.outboxes import migrated, rows


@pytest.fixture
async def place(effect_store_url: str) -> str:
    """The URL of a database with a store in it."""
    return await migrated(effect_store_url)


async def purge(janitor: Janitor, args: PurgeExpired | None = None, published: int | None = None) -> Answer:
    job = Job("purge", PURGE_EXPIRED.name, args or PurgeExpired(), published=published)
    return await janitor.purge_expired(job)


async def test_what_is_old_goes_and_what_is_fresh_or_has_no_time_stays(place: str) -> None:
    with_things(place, old=1200, fresh=20, timeless=30)
    answer = await purge(a_janitor(place))
    assert answer == {"deleted": {"things": 1200, MARKS: 0}, "unfinished": [], "absent": []}
    assert things(place) == {"fresh": 20, "timeless": 30}
    assert (await purge(a_janitor(place)))["deleted"] == {"things": 0, MARKS: 0}


async def test_old_marks_go_and_those_of_running_jobs_and_of_late_stay(place: str) -> None:
    now = int(time.time() * 1000)
    month, hour = 31 * 86_400_000, 3_600_000
    for job, state, until, claimed in (
        ("old", "done", 0, now - month),
        ("late", "done", 0, now - hour),
        ("running", "running", now + hour, now - month),
    ):
        run(
            place,
            "INSERT INTO penstock_records (consumer, job_id, copy, state, token, until, claimed)"
            f" VALUES ('email', '{job}', 0, '{state}', 1, {until}, {claimed})",
        )
    assert (await purge(a_janitor(place)))["deleted"] == {MARKS: 1}
    assert rows(place, "SELECT job_id FROM penstock_records ORDER BY job_id") == [("late",), ("running",)]


async def test_the_shipped_rules_fit_the_tables_of_our_services(place: str) -> None:
    url = StoreUrl.parse(place)
    await migrate_credits(url)
    await migrate_mailer(url)
    eleven_years, month = instant(timedelta(days=4015)), instant(OLD)
    run(
        place,
        f"INSERT INTO credit_entries (job_id, to_user, amount, booked) VALUES ('old', 1, 5, '{eleven_years}')",
        "INSERT INTO credit_entries (job_id, to_user, amount) VALUES ('new', 1, 5)",
        "INSERT INTO credit_accounts VALUES (1, 10)",
        f"INSERT INTO mailer_subscribers (email, name, unsubscribed_at) VALUES ('gone@x.org', 'Gone', '{month}')",
        f"INSERT INTO mailer_subscribers (email, name, subscribed_at) VALUES ('old@x.org', 'Old', '{eleven_years}')",
    )
    janitor = a_janitor(place, read_rules(SHIPPED))
    answer = await purge(janitor, PurgeExpired(only=("credit_entries", "mailer_subscribers")))
    assert answer["deleted"] == {"credit_entries": 1, "mailer_subscribers": 1}
    assert rows(place, "SELECT job_id FROM credit_entries") == [("new",)]
    assert rows(place, "SELECT user_id, balance FROM credit_accounts") == [(1, 10)]
    assert rows(place, "SELECT name FROM mailer_subscribers") == [("Old",)]


async def test_tables_that_are_not_there_are_told_and_no_failure(place: str) -> None:
    assert await purge(a_janitor(place)) == {"deleted": {MARKS: 0}, "unfinished": [], "absent": ["things"]}


async def test_a_job_can_keep_more_than_the_rules_and_never_less(place: str) -> None:
    with_things(place, old=5, fresh=5)
    janitor, kept = a_janitor(place), {"things": 0, MARKS: 0}
    assert (await purge(janitor, PurgeExpired(older_than_days=40)))["deleted"] == kept
    past, coming = datetime.now(UTC) - timedelta(days=2), datetime.now(UTC) + timedelta(days=999)
    assert (await purge(janitor, PurgeExpired(as_of=past)))["deleted"] == kept
    assert (await purge(janitor, published=int(past.timestamp() * 1000)))["deleted"] == kept
    eager = PurgeExpired(as_of=coming, older_than_days=1)
    assert (await purge(janitor, eager, published=2**50))["deleted"] == {"things": 5, MARKS: 0}
    assert things(place) == {"fresh": 5}


async def test_a_dry_run_counts_and_deletes_nothing(place: str) -> None:
    with_things(place, old=7, fresh=2)
    answer = await purge(a_janitor(place), PurgeExpired(dry_run=True))
    assert answer == {"expired": {"things": 7}, "unfinished": [], "absent": []}
    assert things(place) == {"old": 7, "fresh": 2}


async def test_only_what_rules_name_can_be_asked_for_and_a_wrong_word_deletes_nothing(place: str) -> None:
    with_things(place, old=5)
    with pytest.raises(Reject, match="no rule for penstock_outbox; there are things, marks"):
        await purge(a_janitor(place), PurgeExpired(only=("things", "penstock_outbox")))
    assert things(place) == {"old": 5}


async def test_rules_that_the_database_does_not_fit_are_told_after_the_others_were_followed(place: str) -> None:
    with_things(place, old=5)
    run(
        place,
        "CREATE TABLE slow (id BIGINT PRIMARY KEY, at TIMESTAMPTZ)",
        "CREATE VIEW seen AS SELECT * FROM things",
        "CREATE TABLE other (at TIMESTAMPTZ)",
        "CREATE INDEX other_at ON other (at)",
    )
    rule = "{column: at, keep: 30d}"
    text = f"tables: {{slow: {rule}, seen: {rule}, other: {{column: gone, keep: 1d}}, things: {rule}}}"
    with pytest.raises(Reject) as caught:
        await purge(a_janitor(place, text))
    told = str(caught.value)
    assert "table slow has no index that begins with at: every batch would read it all" in told
    assert "seen" in told
    assert "table other has no column gone" in told
    assert things(place) == {}


async def test_a_row_that_others_need_is_a_problem_and_stays(place: str) -> None:
    with_things(place, old=1)
    run(place, "CREATE TABLE parts (thing BIGINT REFERENCES things (id))", "INSERT INTO parts VALUES (0)")
    if place.startswith("sqlite"):  # which keeps to foreign keys only when a connection asks for that
        run(place, "CREATE TRIGGER kept BEFORE DELETE ON things BEGIN SELECT raise(ABORT, 'is needed'); END")
    with pytest.raises(Reject, match=r"^table things: .*(is needed|violates foreign key)"):
        await purge(a_janitor(place))
    assert things(place) == {"old": 1}


async def test_a_column_in_milliseconds_expires_too_and_seconds_in_it_are_not_believed(place: str) -> None:
    run(
        place,
        "CREATE TABLE things (id BIGINT PRIMARY KEY, kind TEXT NOT NULL, at BIGINT)",
        "CREATE INDEX things_at ON things (at)",
    )
    now = time.time()
    old, fresh = int((now - OLD.total_seconds()) * 1000), int((now - FRESH.total_seconds()) * 1000)
    insert(place, [(1, "old", old), (2, "fresh", fresh), (3, "seconds", int(now)), (4, "zero", 0), (5, "none", None)])
    rules = "tables: {things: {column: at, keep: 30d, unit: milliseconds}}"
    assert (await purge(a_janitor(place, rules)))["deleted"] == {"things": 1, MARKS: 0}
    assert things(place).keys() == {"fresh", "seconds", "zero", "none"}


async def test_when_time_is_up_the_rest_is_left_to_the_next_run(place: str) -> None:
    with_things(place, old=40)
    hurried = a_janitor(place, budget=timedelta(milliseconds=1))
    answer = await purge(hurried, PurgeExpired(batch=10, only=("things",)))
    assert answer == {"deleted": {"things": 10}, "unfinished": ["things"], "absent": []}
    assert things(place) == {"old": 30}
    assert (await purge(a_janitor(place), PurgeExpired(batch=10)))["deleted"] == {"things": 30, MARKS: 0}


async def test_a_writer_beside_it_gets_its_turn_between_batches(place: str) -> None:
    with_things(place, old=800)
    running = asyncio.create_task(purge(a_janitor(place), PurgeExpired(batch=20)))
    seen, longest = await asyncio.to_thread(_write_until, place, running.done)
    assert (await running)["deleted"] == {"things": 800, MARKS: 0}
    assert len(seen) > 5, "it wrote while some were deleted and others were not"
    assert longest < 5.0
    assert things(place).keys() == {"written"}


def _write_until(place: str, over: Callable[[], bool]) -> tuple[set[int], float]:
    """Insert rows one by one until *over*: which numbers of old rows were seen meanwhile, and the longest wait."""
    seen, longest, number = set(), 0.0, 10_000
    with looking(place) as connection:
        while not over():
            started = time.monotonic()
            connection.execute(f"INSERT INTO things VALUES ({number}, 'written', NULL)")
            connection.commit()
            longest = max(longest, time.monotonic() - started)
            seen.add(count(connection).get("old", 0))
            number += 1
    return seen - {0, 800}, longest


async def test_numbers_in_a_column_of_timestamps_are_not_taken_for_old_ones(tmp_path: Path) -> None:
    place = await migrated(f"sqlite:///{tmp_path}/store.db")
    with_things(place, old=1)
    insert(place, [(7, "seconds", 1_700_000_000), (8, "zero", 0), (9, "text", "1700000000x"), (10, "empty", "")])
    assert (await purge(a_janitor(place)))["deleted"] == {"things": 1, MARKS: 0}
    assert things(place).keys() == {"seconds", "zero", "text", "empty"}


async def test_a_locked_row_is_passed_over_and_a_locked_table_is_left_to_the_next_run(postgres_url: str) -> None:
    place = await migrated(postgres_url)
    with_things(place, old=3)
    with psycopg.connect(place) as outside:
        outside.execute("SELECT * FROM things WHERE id = 1 FOR UPDATE")
        assert (await purge(a_janitor(place)))["deleted"] == {"things": 2, MARKS: 0}
        outside.execute("LOCK TABLE things")
        answer = await purge(a_janitor(place))
        assert (answer["deleted"], answer["unfinished"]) == ({"things": 0, MARKS: 0}, ["things"])
    assert things(place) == {"old": 1}


async def test_partitions_and_timestamps_without_a_zone_are_refused(postgres_url: str) -> None:
    place = await migrated(postgres_url)
    run(
        place,
        "CREATE TABLE things (at timestamptz) PARTITION BY RANGE (at)",
        "CREATE TABLE local_times (at timestamp)",
        "CREATE INDEX local_times_at ON local_times (at)",
    )
    rules = f"{RULES[:-1]}, local_times: {{column: at, keep: 1d}}}}"
    with pytest.raises(Reject) as caught:
        await purge(a_janitor(place, rules))
    assert "things is no plain table" in str(caught.value)
    assert "at is timestamp without time zone; with unit timestamp, it must be" in str(caught.value)


async def test_a_table_may_be_named_with_its_schema(postgres_url: str) -> None:
    place = await migrated(postgres_url)
    run(place, "CREATE SCHEMA shop")
    with_things(place, old=2, fresh=1)
    run(place, "ALTER TABLE things SET SCHEMA shop")
    rules = "tables: {shop.things: {column: at, keep: 30d}}"
    assert (await purge(a_janitor(place, rules)))["deleted"] == {"shop.things": 2, MARKS: 0}
    assert rows(place, "SELECT kind FROM shop.things") == [("fresh",)]


async def test_marks_expire_in_a_redis_as_well(redis_url: str) -> None:
    await migrated(redis_url)
    assert (await purge(a_janitor(redis_url, "folders: {}")))["deleted"] == {MARKS: 0}
