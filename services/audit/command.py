"""The audit's command: its table, and a look at what is in it."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import orjson

from penstock import PenstockError
from penstock.claims import StoreUrl
from penstock.durations import EXPECTED, duration
from penstock.printable import printable
from penstock.service_tables import make_tables, transaction
from penstock.settings import Settings
from services.audit import records
from services.audit.app import HOLDS
from services.audit.records import Record

_TABLE_LOCK = 0x6175646974  # "audit"
_LIMIT = 100


async def migrate(url: StoreUrl) -> None:
    """Make the store's tables and the audit's at *url*; idempotent, and safe to run twice at once.

    Raises ``ConfigError``, ``StoreUnavailable``.
    """
    await make_tables(url, HOLDS, _TABLE_LOCK, records.make_table)


async def look(url: StoreUrl, limit: int, kind: str | None, since: int) -> list[Record]:
    """The last *limit* records; see ``records.latest``. Raises as ``migrate``."""
    async with transaction(url, HOLDS) as tx:
        return await records.latest(tx, limit, kind=kind, since=since)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command the command line names; an error is one line on standard error. Never raises."""
    asked = _parser().parse_args(arguments)
    try:
        url = Settings.load().store
        if asked.command == "migrate":
            asyncio.run(migrate(url))
            lines = [f"the audit's table is ready in {url.shown}"]
        else:
            found = asyncio.run(look(url, asked.limit, asked.kind, asked.since))
            lines = [(_json if asked.json else _line)(record) for record in found]
    except PenstockError as error:
        print(f"audit: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return error.exit_code
    for line in lines:
        print(line)  # noqa: T201 - the command's answer
    return 0


def _line(record: Record) -> str:
    words = [_when(record.recorded), record.kind, record.job_id, f"by {record.app_id or '-'}"]
    words += [f"for {record.correlation_id}"] if record.correlation_id else []
    words += [f"published {_when(record.published)}", f"{record.args_bytes} B", record.args_sha256]
    return printable("  ".join(words))


def _json(record: Record) -> str:
    return orjson.dumps(asdict(record)).decode()


def _when(instant: int | None) -> str:
    if instant is None:
        return "-"
    try:
        return f"{datetime.fromtimestamp(instant / 1000, UTC):%Y-%m-%dT%H:%M:%S}.{instant % 1000:03d}Z"
    except (ValueError, OverflowError, OSError):  # a producer may have said anything
        return f"{instant} ms"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.audit", description="The record of every job published.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="make the audit's table where PENSTOCK_STORE_URL says")
    looking = commands.add_parser("list", help="show the last records, in the order in which they were made")
    looking.add_argument("--kind", metavar="PATTERN", help="only kinds that fit, such as email.send or email.*")
    looking.add_argument("--since", metavar="WHEN", type=_since, default=0, help="2h, or 2026-08-03T07:00:00Z")
    looking.add_argument("--limit", metavar="N", type=_limit, default=_LIMIT, help=f"at most so many ({_LIMIT})")
    looking.add_argument("--json", action="store_true", help="print a line of JSON for each")
    return parser


def _since(text: str) -> int:
    """The instant (ms since 1970 UTC) *text* ago, or that it names."""
    try:
        return int((time.time() - duration(text).total_seconds()) * 1000)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.utcoffset() is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no instant with its zone (2026-08-03T07:00:00Z); or {EXPECTED}")
    return int(when.timestamp() * 1000)


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 1000000")
    return int(text)
