"""What is in the databases of the benchmark: accounts, marks of earlier jobs, rows of an outbox; and their sums."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any  # a connection of psycopg or sqlite3, and what Redis answers

import psycopg
from redis import Redis

from penstock.claims import StoreUrl
from tests.bench.cells import ACCOUNTS

#: Whose marks are many: the worker on the queue of that name.
CONSUMER = "full"
_DAY = 86_400_000
_REDIS_STEP = 20_000


def _series(rows: int) -> str:
    return f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) "


#: For effects, with or without Penstock, and for marks by hand.
TABLES = (
    "CREATE TABLE accounts (id integer PRIMARY KEY, balance bigint NOT NULL)",
    f"INSERT INTO accounts {_series(ACCOUNTS)} SELECT i - 1, 0 FROM n",
    "CREATE TABLE marks (job_id text PRIMARY KEY, at bigint NOT NULL, done boolean)",
)
_RESET = "UPDATE accounts SET balance = 0"
_BALANCE = "SELECT sum(balance) FROM accounts"
_MARKED = """SELECT (SELECT count(*) FROM penstock_records WHERE state = 'done')
    + (SELECT count(*) FROM marks WHERE done IS NOT FALSE)"""
_WAITING = "SELECT count(*) FROM penstock_outbox WHERE published IS NULL"

#: A fresh id (``penstock.clock.new_job_id`` in SQL) at each of so many instants.
_IDS = {
    "postgresql": """SELECT t, left(h, 8) || '-' || right(h, 4) || '-7' || substr(u, 16) AS id, md5(u) AS hash
        FROM (SELECT t, lpad(to_hex(t), 12, '0') AS h, gen_random_uuid()::text AS u
            FROM (SELECT {begin}::bigint + i * {step}::bigint AS t FROM generate_series(1, {rows}) AS i) AS s) AS r""",
    "sqlite": """SELECT t, substr(h, 1, 8) || '-' || substr(h, 9) || '-7' || substr(u, 1, 3) || '-8' || substr(u, 4, 3)
            || '-' || substr(u, 7, 12) AS id, u AS hash
        FROM (SELECT t, printf('%012x', t) AS h, lower(hex(randomblob(16))) AS u
            FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
                SELECT {begin} + i * {step} AS t FROM n))""",
}
_RECORDS = """INSERT INTO penstock_records (consumer, job_id, copy, state, token, until, args_hash, claimed)
    SELECT '{consumer}', id, 0, 'done', t * 1000003, t, hash, t FROM ({ids}) AS made"""
_OUTBOX = """INSERT INTO penstock_outbox (kind, job_id, body, created)
    SELECT '{kind}', id, {body}, t FROM ({ids}) AS made"""

#: As the scripts of the store leave a job that is done.
_REDIS_RECORDS = """
for i = ARGV[1] + 1, ARGV[1] + ARGV[2] do
  local t = string.format('%.0f', ARGV[3] + i * ARGV[4])
  local id = string.format('%08x-%04x-7%03x-8%03x-%012x', t / 65536, t % 65536, i % 4096, i % 4093, i * 7919)
  redis.call('HSET', 'penstock:job:' .. id, 'at:' .. ARGV[5], '0 done 4611686018427387904 ' .. t .. ' ' .. t,
    'hash:' .. ARGV[5], string.format('%032x', i))
  redis.call('PEXPIRE', 'penstock:job:' .. id, 2592000000)
  redis.call('ZADD', 'penstock:done', t, #ARGV[5] .. ':' .. ARGV[5] .. id)
end"""


def make_tables(url: str) -> None:
    """Make the accounts, and the table for marks by hand; Penstock's own are made by its migration."""
    _execute(url, *TABLES)


def settle(url: str) -> None:
    """Set the accounts to 0, and let nothing that was written before be left to do for the server."""
    if _scheme(url) == "redis":
        return
    _execute(url, _RESET, *(("VACUUM (ANALYZE)", "CHECKPOINT") if _scheme(url) == "postgresql" else ()))


def add_marks(url: str, marks: int) -> None:
    """Let the store remember so many jobs that were done in the last weeks."""
    begin, step = _instants(marks)
    if _scheme(url) == "redis":
        with Redis.from_url(url) as client:
            script = client.register_script(_REDIS_RECORDS)
            for done in range(0, marks, _REDIS_STEP):
                script(args=[done, min(_REDIS_STEP, marks - done), begin, step, CONSUMER])
        return
    ids = _IDS[_scheme(url)].format(begin=begin, step=step, rows=marks)
    _execute(url, _RECORDS.format(consumer=CONSUMER, ids=ids))


def fill_outbox(url: str, kind: str, body: bytes, rows: int) -> None:
    """Let so many jobs wait in the outbox."""
    begin, _ = _instants(rows)
    ids = _IDS[_scheme(url)].format(begin=begin, step=1, rows=rows)
    literal = f"'\\x{body.hex()}'::bytea" if _scheme(url) == "postgresql" else f"X'{body.hex()}'"
    _execute(url, _OUTBOX.format(kind=kind, body=literal, ids=ids))


def balance(url: str) -> int:
    """The sum of all accounts: the effects there were."""
    return _value(url, _BALANCE)


def marked(url: str) -> int:
    """The jobs that are marked done, by Penstock or by hand."""
    if _scheme(url) != "redis":
        return _value(url, _MARKED)
    with Redis.from_url(url) as client:
        ours: Any = client.zcard("penstock:done")
        return int(ours or sum(1 for _ in client.scan_iter("job:*", 1000)))


def waiting(url: str) -> int:
    """The rows of the outbox that are not published."""
    return _value(url, _WAITING)


def _instants(rows: int) -> tuple[int, int]:
    """The first of *rows* instants and the step between them: over three weeks, until an hour ago."""
    span = 21 * _DAY
    return time.time_ns() // 1_000_000 - span - _DAY // 24, span // rows


def _scheme(url: str) -> str:
    return StoreUrl.parse(url).scheme


def _execute(url: str, *statements: str) -> None:
    with _connected(url) as connection:
        for statement in statements:
            connection.execute(statement)


def _value(url: str, statement: str) -> int:
    with _connected(url) as connection:
        return int(connection.execute(statement).fetchone()[0])


@contextmanager
def _connected(url: str) -> Iterator[Any]:
    if _scheme(url) == "sqlite":
        with closing(sqlite3.connect(StoreUrl.parse(url).path, isolation_level=None)) as connection:
            yield connection
    else:
        with psycopg.connect(url, autocommit=True) as session:
            yield session
