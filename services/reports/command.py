"""The reports' command: check the definitions, or make a report here and now."""

from __future__ import annotations

import argparse
import re
import resource
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson

from penstock import ConfigError, Job, PenstockError, Reject
from penstock.printable import printable
from penstock_jobs import TABLE_REPORT
from services.reports.app import missing_databases, places_of, reports_of
from services.reports.databases import open_databases
from services.reports.definitions import Definition, read_definitions
from services.reports.handlers import positions
from services.reports.outline import Type, Value
from services.reports.ports import Database, DatabaseAway, Refused, TooSlow
from services.reports.settings import Settings

#: The exit code of a check that found something, and of a database that is away (as of every server).
_FOUND, _AWAY = 6, 3

_STATUS = Path("/proc/self/status")

_EXAMPLES = """\
examples:
  python -m services.reports check reports.yaml --connect
  python -m services.reports run '{"report": "credit-ledger", "formats": ["xlsx"]}'"""

#: What a database is asked with when only the columns of its answer count.
_SAMPLES: Mapping[Type, Value] = {
    Type.TEXT: "",
    Type.INTEGER: 0,
    Type.DECIMAL: 0,
    Type.NUMBER: 0.0,
    Type.BOOLEAN: False,
    Type.DATE: datetime(2000, 1, 1, tzinfo=UTC).date(),
    Type.TIMESTAMP: datetime(2000, 1, 1, tzinfo=UTC),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command the command line names; an error is one line on standard error. Never raises."""
    asked = _parser().parse_args(arguments)
    try:
        settings = Settings.read()
        return _check(settings, asked.file, asked.connect) if asked.command == "check" else _run(settings, asked)
    except ConfigError as error:
        return _tell(error.exit_code, error.problems)
    except PenstockError as error:
        return _tell(error.exit_code, [str(error)])
    except (DatabaseAway, TooSlow) as error:
        return _tell(_AWAY, [str(error)])
    except MemoryError:
        return _tell(1, ["a report takes more memory than it may: REPORTS_MEMORY, or what this process was given"])
    except OSError as error:
        return _tell(1, [f"{error.filename or settings.output_dir}: {error.strerror or error}"])


def _check(settings: Settings, file: Path | None, connect: bool) -> int:
    definitions = read_definitions(file or settings.definitions)
    databases = open_databases(places_of(settings), settings.statement_timeout)
    problems = missing_databases(definitions, databases)
    if connect:
        problems += [words for each in definitions.values() if (words := _try(each, databases)) is not None]
    if problems:
        return _tell(_FOUND, problems)
    asked = ", and their databases take the queries" if connect else ""
    _say(f"{file or settings.definitions}: {len(definitions)} reports are in order{asked}")
    return 0


def _try(definition: Definition, databases: Mapping[str, Database]) -> str | None:
    """What the database of *definition* says against its query; None when it takes it and the columns fit."""
    database = databases.get(definition.database)
    if database is None:
        return None
    samples = {name: _SAMPLES[type_] for name, type_ in definition.types.items()}
    try:
        with database.reading(definition.statement.described(), definition.types, samples) as found:
            positions(definition.outline, found.columns)
    except (Refused, DatabaseAway, TooSlow) as error:
        return f"report {definition.name}: {error}"
    return None


def _run(settings: Settings, asked: argparse.Namespace) -> int:
    began = time.monotonic()
    job = Job(asked.id or uuid.uuid4().hex, TABLE_REPORT.name, TABLE_REPORT.decode(asked.arguments.encode()))
    reports = reports_of(settings)
    _cap(settings.memory * 1024 * 1024)
    try:
        told = reports.table_report(job)
    except Reject as error:
        return _tell(2, [str(error)])
    _say(orjson.dumps(told).decode())
    return _tell(0, [f"{told['rows']} rows in {time.monotonic() - began:.1f} s, at most {_peak()} MiB"])


def _cap(memory: int) -> None:
    """Let this process address what the worker's child may, so that a trial is one; or less, if it has to."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory if most == resource.RLIM_INFINITY else min(memory, most), most))


def _peak() -> int:
    """The most memory this process had (MiB). Linux's ``ru_maxrss`` begins with what the parent had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.exists() else None
    return (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) // 1024


def _say(line: str) -> None:
    print(printable(line))  # noqa: T201 - the command's answer


def _tell(code: int, lines: Iterable[str]) -> int:
    for line in lines:
        print(f"reports: {printable(line)}", file=sys.stderr)  # noqa: T201 - what a person is to know beside the answer
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.reports",
        description="Try the definitions of reports.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="look for mistakes in a file of definitions")
    check.add_argument("file", type=Path, nargs="?", help="(default: REPORTS_DEFINITIONS)")
    check.add_argument("--connect", action="store_true", help="ask each database whether it takes the query, too")
    run = commands.add_parser("run", help="make a report here and now, as a job with these arguments would")
    run.add_argument("arguments", help="the arguments of report.table, a JSON object")
    run.add_argument("--id", help="the job's id, by which the files are named (default: a random one)")
    return parser
