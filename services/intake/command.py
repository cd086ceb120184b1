"""The intake's command: serve, or make a token."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from penstock import ConfigError, PenstockError
from penstock.printable import printable
from services.intake.tokens import Action, add_token

_TOKENS = "intake-tokens.yaml"
_EXAMPLES = """\
examples:
  python -m services.intake                                      serve on 127.0.0.1:8080, or where INTAKE_* says
  python -m services.intake token shop --kinds 'email.*' 'report.*' --may publish read

A token is printed once; the file has only its hash. A second token of the same name replaces the first one when that is
deleted from the file, which a running intake reads again."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command the command line names; an error is one line on standard error. Never raises."""
    told = _parser().parse_args(arguments)
    try:
        return _token(told) if told.command == "token" else _serve()
    except ConfigError as error:
        return _fail(error, *error.problems)
    except PenstockError as error:
        return _fail(error, str(error))


def _serve() -> int:
    from services.intake.app import run  # FastAPI and more, which a token does not take

    return 0 if run() else 1


def _token(told: argparse.Namespace) -> int:
    token = add_token(told.file, told.name, told.kinds, told.may)
    print(token)  # noqa: T201 - the command's answer
    scope = f"{' and '.join(told.may)} {', '.join(told.kinds)}"
    line = f"intake: {told.name} may {scope} with this token; {told.file} has only its hash, so keep it now"
    print(printable(line), file=sys.stderr)  # noqa: T201
    return 0


def _fail(error: PenstockError, *lines: str) -> int:
    for line in lines:
        print(f"intake: {printable(line)}", file=sys.stderr)  # noqa: T201 - the command's answer
    return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.intake",
        description="Take jobs over HTTP.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve until it is told to stop; what is done without a command")
    token = commands.add_parser("token", help="make an API token")
    token.add_argument("name", help="whose it is; idempotency keys are told apart by it")
    token.add_argument(
        "--kinds", nargs="+", required=True, metavar="PATTERN", help="such as email.send or 'email.*'; '#' is all"
    )
    token.add_argument(
        "--may", nargs="+", type=Action, choices=list(Action), default=[Action.PUBLISH], help="(default: publish)"
    )
    token.add_argument(
        "--file",
        type=Path,
        default=Path(os.environ.get("INTAKE_TOKENS") or _TOKENS),
        help=f"where its hash goes (default: INTAKE_TOKENS or {_TOKENS})",
    )
    return parser
