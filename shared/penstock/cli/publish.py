"""``penstock publish``: one job from the command line, as it is given."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any  # an option that is a duration or an instant

import orjson
import typer

from penstock import logs
from penstock.cli.catalogue import CATALOGUE, read_catalogue
from penstock.cli.values import instant, span, span_or_instant
from penstock.errors import UnknownKind, UsageError
from penstock.event_log import subscribe
from penstock.job import Receipt, json_object
from penstock.message import MAX_BODY
from penstock.publisher import AsyncPublisher
from penstock.settings import LogLevel, Settings
from penstock.topology.form import near_or_all

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_EXAMPLES = """
\b
Examples:
  penstock publish email.send '{"to": "ada@example.org", "template": "welcome"}'
  penstock publish report.sales @orders.json --delay 5m
  cat job.json | penstock publish email.send - --check --json
"""


@dataclass(frozen=True, slots=True)
class _Options:
    id: str | None
    delay: timedelta | None
    at: datetime | None
    expires: timedelta | datetime | None


@app.command(epilog=_EXAMPLES)
def publish(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="The job's kind, such as email.send.")],
    body: Annotated[
        str, typer.Argument(metavar="JSON|-|@FILE", help="The arguments: JSON, - for standard input, or a file.")
    ] = "{}",
    delay: Annotated[
        timedelta | None, typer.Option(parser=span, metavar="DURATION", help="Run it after 90, 90s, 5m, 2h, 1d.")
    ] = None,
    at: Annotated[
        datetime | None, typer.Option(parser=instant, metavar="INSTANT", help="Run it at 2030-01-31T08:00:00+01:00.")
    ] = None,
    id: Annotated[str | None, typer.Option(metavar="ID", help="The job id (a fresh UUIDv7).")] = None,  # noqa: A002
    expires: Annotated[
        Any, typer.Option(parser=span_or_instant, metavar="WHEN", help="Do not run it after this duration or instant.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Refuse what does not fit the catalogue's kind.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of the bare id.")] = False,
    catalogue: Annotated[str, typer.Option(metavar="MODULE:NAME", help="The catalogue for --check.")] = CATALOGUE,
) -> None:
    """Publish one job and print its id once the broker has confirmed it."""
    content = read_body(body)
    if check:
        checked(kind, content, catalogue)
    settings = Settings.load()
    logs.setup(settings, default=LogLevel.WARNING)
    receipt = asyncio.run(_publish(kind, content, _Options(id, delay, at, expires), settings))
    typer.echo(orjson.dumps({"id": receipt.id, "kind": receipt.kind}).decode() if as_json else receipt.id)


async def _publish(kind: str, body: bytes, options: _Options, settings: Settings) -> Receipt:
    publisher = AsyncPublisher(settings.broker_url, app_id="penstock", connect_timeout=settings.connect_timeout)
    subscribe(publisher.events)
    async with publisher:
        return await publisher.publish_body(
            kind, body, id=options.id, delay=options.delay, at=options.at, expires=options.expires
        )


def read_body(argument: str) -> bytes:
    """The bytes *argument* stands for, and no more of them than show that they are too many."""
    if argument == "-":
        return sys.stdin.buffer.read(MAX_BODY + 1)
    if not argument.startswith("@"):
        return argument.encode("utf-8", "surrogateescape")
    try:
        with Path(argument[1:]).open("rb") as file:
            return file.read(MAX_BODY + 1)
    except OSError as error:
        raise UsageError(f"cannot read {argument[1:]}: {error.strerror}") from None


def checked(kind: str, body: bytes, catalogue: str) -> None:
    """Raise ``UnknownKind``, ``DecodeError`` or ``SchemaError`` unless *body* fits *kind* of *catalogue*."""
    json_object(body)
    kinds = read_catalogue(catalogue)
    if kind not in kinds:
        raise UnknownKind(f"no kind {kind!r} in {catalogue}{near_or_all(kind, kinds)}")
    kinds[kind].decode(body)
