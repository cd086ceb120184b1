"""The orders command: arguments and environment in, an exit code out; everything is put together here."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

import orjson
from rich.console import Console

from penstock import Events, PenstockError, Publisher, Receipt, UsageError
from penstock.events import ConnectFailed
from penstock.secret_files import secret_from
from penstock.settings import Settings
from services.orders.direct import Direct
from services.orders.door import Door
from services.orders.ports import Taker
from services.orders.progress import shown
from services.orders.reading import Format, rows
from services.orders.regions import collecting
from services.orders.submitting import Listeners, Submission, Tally

#: Where the regions' files go unless told otherwise; the reports service looks in the same place.
SPOOL = "var/reports/source"

FOUND = 6  # some rows were bad
NOT_TAKEN = 7  # some jobs were refused by the broker
STOPPED = 1

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_EXAMPLES = """\
examples:
  python -m services.orders orders.csv
  python -m services.orders --run 2026-07 - < orders.ndjson

The same order in the same run always has the same job id, so an interrupted submission is simply repeated.

exit codes: 0 all taken · 1 stopped · 2 usage · 3 broker unreachable · 4 refused · 5 configuration ·
6 some rows were bad, the others are published · 7 some jobs were not taken by the broker"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Submit the orders the command line names; errors are one line each on standard error. Never raises."""
    told = _parser().parse_args(arguments)
    errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        return _submit(told, errors)
    except PenstockError as error:
        errors.print(f"orders: {error}")
        return error.exit_code
    except OSError as error:
        errors.print(f"orders: {error.filename or 'input'}: {error.strerror or error}")
        return UsageError.exit_code
    except KeyboardInterrupt:
        errors.print("orders: stopped; submit the same orders again to go on, the job ids are the same")
        return STOPPED


def _submit(told: argparse.Namespace, errors: Console) -> int:
    with (
        _opened(told.source) as source,
        collecting(told.spool / told.run) as regions,
        _kept(told.receipts) as keep,
        shown(errors, source) as show,
        _taker(told.door, errors.print) as taker,
    ):
        submission = Submission(taker, regions, told.run, Listeners(keep, errors.print, show))
        try:
            submission.submit(rows(source, told.format))
        finally:
            print(_words(submission.tally), flush=True)  # noqa: T201 - the command's answer
    return NOT_TAKEN if submission.tally.refused else FOUND if submission.tally.bad else 0


def _taker(door: str | None, say: Callable[[str], None]) -> AbstractContextManager[Taker]:
    if door is None:
        return _direct(say)
    token = secret_from(os.environ, "ORDERS_DOOR_TOKEN")
    return Door(door, token, Settings.load().connect_timeout, lambda words: say(f"orders: {words}"))


@contextmanager
def _direct(say: Callable[[str], None]) -> Iterator[Taker]:
    events = Events()
    events.subscribe(lambda event: say(_try_words(event)) if isinstance(event, ConnectFailed) else None)
    with Publisher(app_id="orders", connect_timeout=Settings.load().connect_timeout, events=events) as publisher:
        yield Direct(publisher)


def _try_words(event: ConnectFailed) -> str:
    return f"orders: {event.reason}; next try in {event.delay:.1f} s"


def _words(tally: Tally) -> str:
    more = f", {tally.refused} not taken" if tally.refused else ""
    published = f"{tally.mails} mails and {tally.reports} reports published"
    return f"{published}, {tally.bad} bad rows{more}, {tally.line} lines read"


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as file:
        yield file


@contextmanager
def _kept(path: Path | None) -> Iterator[Callable[[Receipt, str], None]]:
    """Write a line for every confirmed job to *path*."""
    if path is None:
        yield lambda *_: None
        return
    with path.open("ab", buffering=0) as file:
        yield lambda receipt, run: _write(file, receipt, run)


def _write(file: BinaryIO, receipt: Receipt, run: str) -> None:
    file.write(orjson.dumps({"id": receipt.id, "kind": receipt.kind, "run": run}) + b"\n")


def _run_name(text: str) -> str:
    if _RUN.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits, '.', '_' and '-'")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.orders",
        description="Publish a mail for each order and a report for each region.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="FILE", help="orders as CSV or NDJSON; - reads standard input")
    parser.add_argument(
        "--format", type=Format, choices=list(Format), help="how the orders are written (default: by the first line)"
    )
    parser.add_argument(
        "--run", type=_run_name, default="orders", help="name of this submission (default: %(default)s)"
    )
    parser.add_argument(
        "--spool",
        type=Path,
        default=Path(os.environ.get("ORDERS_SPOOL_DIR", SPOOL)),
        metavar="DIR",
        help="where the regions' CSV files go (default: ORDERS_SPOOL_DIR or var/reports/source)",
    )
    parser.add_argument(
        "--door",
        default=os.environ.get("ORDERS_DOOR") or None,
        metavar="URL",
        help="hand the jobs to the intake at URL instead of the broker (default: ORDERS_DOOR, else the broker)",
    )
    parser.add_argument("--receipts", type=Path, metavar="FILE", help="append a line of JSON for each confirmed job")
    return parser
