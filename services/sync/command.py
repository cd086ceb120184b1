"""The sync's command: its tables, how far it is, and beginning a source anew."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from penstock import PenstockError, UsageError
from penstock.claims import StoreUrl
from penstock.printable import printable
from penstock.service_tables import make_tables, transaction
from penstock.settings import Settings
from services.sync import shelf
from services.sync.app import HOLDS

_TABLES_LOCK = 0x73796E63  # "sync"


async def migrate(url: StoreUrl) -> str:
    """Make the store's tables and the sync's at *url*; idempotent, and safe to run twice at once. What was done.

    Raises ``ConfigError``, ``StoreUnavailable``.
    """
    await make_tables(url, HOLDS, _TABLES_LOCK, shelf.make_tables)
    return f"the sync's tables are ready in {url.shown}"


async def status(url: StoreUrl) -> str:
    """How far each source is, a line each. Raises as ``migrate``."""
    async with transaction(url, HOLDS) as tx:
        found = await shelf.status(tx)
    lines = [
        f"{source}: {items} items, {pages} pages, last at {when or '-'}, next page {place or 'the first'}"
        for source, pages, place, when, items in found
    ]
    return "\n".join(map(printable, lines)) or "nothing was pulled yet"


async def rewind(url: StoreUrl, source: str) -> str:
    """Let *source* be pulled from its first page again; what was pulled stays. Raises ``UsageError``, and as
    ``migrate``."""
    async with transaction(url, HOLDS) as tx:
        if not await shelf.rewind(tx, source):
            raise UsageError(f"source {source!r:.80} was never pulled: there is nothing to go back to")
    return f"{source} begins at its first page again"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command the command line names; an error is one line on standard error. Never raises."""
    asked = _parser().parse_args(arguments)
    try:
        url = Settings.load().store
        command = {"migrate": migrate, "status": status}.get(asked.command)
        told = asyncio.run(command(url) if command else rewind(url, asked.source))
    except PenstockError as error:
        print(f"sync: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return error.exit_code
    print(told)  # noqa: T201 - the command's answer
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.sync", description="What is pulled, and how far it is.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="make the sync's tables where PENSTOCK_STORE_URL says")
    commands.add_parser("status", help="show how far each source is")
    commands.add_parser("rewind", help="begin a source at its first page again").add_argument("source")
    return parser
