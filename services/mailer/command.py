"""The mailer's command: its tables, and who is in them."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any  # commands take what their parsers do

from pydantic import TypeAdapter, ValidationError

from penstock import PenstockError, Transaction, UsageError
from penstock.claims import StoreUrl
from penstock.service_tables import make_tables, transaction
from penstock.settings import Settings
from penstock_jobs.email import Address
from services.mailer import shared_budgets, subscribers

_TABLES_LOCK = 0x6D61696C6572  # "mailer"
_HOLDS = "subscribers"
_ADDRESS: TypeAdapter[str] = TypeAdapter(Address)


async def migrate(url: StoreUrl) -> str:
    """Make the store's tables and the mailer's at *url*; idempotent, and safe to run twice at once. What was done.

    Raises ``ConfigError``, ``StoreUnavailable``.
    """
    await make_tables(url, _HOLDS, _TABLES_LOCK, _tables)
    return f"the list of subscribers and the budgets of domains are ready in {url.shown}"


async def _tables(tx: Transaction, scheme: str) -> None:
    await subscribers.make_tables(tx, scheme)
    await shared_budgets.make_tables(tx)


async def subscribe(url: StoreUrl, email: str, name: str) -> str:
    """Let *email* get the digest. Raises ``UsageError`` for what is no address, else as ``migrate``."""
    try:
        _ADDRESS.validate_python(email)
    except ValidationError:
        raise UsageError(f"{email!r} is no plain address such as ada@example.org") from None
    async with transaction(url, _HOLDS) as tx:
        number = await subscribers.subscribe(tx, email, name)
    return f"{email} is subscriber {number}"


async def unsubscribe(url: StoreUrl, email: str) -> str:
    """Let *email* get no more digests. Raises as ``migrate``."""
    async with transaction(url, _HOLDS) as tx:
        gone = await subscribers.unsubscribe(tx, email)
    return f"{email} gets no more digests" if gone else f"{email} gets none"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command the command line names; an error is one line on standard error. Never raises."""
    asked = _parser().parse_args(arguments)
    try:
        url = Settings.load().store
        words = {name: value for name, value in vars(asked).items() if name in ("email", "name")}
        told = asyncio.run(_COMMANDS[asked.command](url, **words))
    except PenstockError as error:
        print(f"mailer: {error}", file=sys.stderr)  # noqa: T201 - the command's answer
        return error.exit_code
    print(told)  # noqa: T201 - the command's answer
    return 0


_COMMANDS: dict[str, Callable[..., Coroutine[Any, Any, str]]] = {
    "migrate": migrate,
    "subscribe": subscribe,
    "unsubscribe": unsubscribe,
}


def _parser() -> argparse.ArgumentParser:
    description = "The mailer's tables, and who gets the daily digest."
    parser = argparse.ArgumentParser(prog="python -m services.mailer", description=description)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="make the mailer's tables where PENSTOCK_STORE_URL says")
    joining = commands.add_parser("subscribe", help="let an address get the digest")
    joining.add_argument("email")
    joining.add_argument("name", help="how to speak to whoever reads it")
    commands.add_parser("unsubscribe", help="let an address get no more digests").add_argument("email")
    return parser
