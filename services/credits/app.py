"""The credits service put together: ``penstock worker services.credits.app:build``, and its tables."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from penstock import PenstockError, Worker
from penstock.claims import StoreUrl
from penstock.service_tables import make_tables, tables
from penstock.settings import Settings
from services.credits import ledger
from services.credits.handlers import handlers

_HOLDS = "a ledger"
_TABLES_LOCK = 0x63726564697473  # "credits"


def build() -> Worker:
    """The credits service; its ledger is in the database of ``PENSTOCK_STORE_URL``."""
    ready = tables(_HOLDS, "python -m services.credits migrate", *ledger.TABLES)
    return Worker(handlers, queue="credits", ready=ready)


async def migrate(url: StoreUrl) -> None:
    """Make the store's tables and the ledger's at *url*; idempotent, and safe to run twice at once.

    Raises ``ConfigError``, ``StoreUnavailable``.
    """
    await make_tables(url, _HOLDS, _TABLES_LOCK, ledger.make_tables)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command the command line names; an error is one line on standard error. Never raises."""
    _parser().parse_args(arguments)
    try:
        where = Settings.load().store
        asyncio.run(migrate(where))
    except PenstockError as error:
        print(f"credits: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return error.exit_code
    print(f"the ledger is ready in {where.shown}")  # noqa: T201 - the command's answer
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.credits", description="Prepare the database for the credits service."
    )
    parser.add_argument("command", choices=["migrate"], help="make the ledger's tables where PENSTOCK_STORE_URL says")
    return parser
