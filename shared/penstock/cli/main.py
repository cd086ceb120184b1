"""The console script ``penstock``: runs the commands, and turns whatever goes wrong into one line and an exit code.

Imports nothing beyond the standard library and what every installation has, so that it can name a missing extra.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from penstock.errors import ConfigError, PenstockError
from penstock.printable import printable

#: Installed by ``penstock[worker]``; the producer-only installation has none of them.
_WORKER_EXTRA = frozenset({"aio_pika", "httpx2", "pydantic_settings", "rich", "structlog", "typer", "yaml"})

_USAGE = 2
_INTERRUPTED = 130
_BROKEN_PIPE = 141


def main() -> None:
    """Run ``penstock`` with this process's arguments and exit with its code."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _without_reader()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. Never raises: errors become a line on standard error."""
    words, wanted = _traceback_wanted(arguments)
    try:
        return _run(words)
    except PenstockError as error:
        return _fail(error, _problems(error), error.exit_code, wanted)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _WORKER_EXTRA:
            return _unexpected(error, words, wanted)
        line = f"this command needs {error.name}, which is not installed: pip install 'penstock[worker]'"
        return _fail(error, [line], _USAGE, wanted)
    except KeyboardInterrupt as error:
        return _fail(error, ["interrupted"], _INTERRUPTED, wanted)
    except BrokenPipeError:
        return _without_reader()
    except Exception as error:  # noqa: BLE001 - the edge: a traceback is for those who ask for it
        return _unexpected(error, words, wanted)


def _run(words: Sequence[str]) -> int:
    from penstock.cli.app import invoke  # here, so that a missing extra is caught

    return invoke(words)


def _traceback_wanted(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """``--traceback`` may stand anywhere; the commands do not see it."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    words = [word for word in arguments[:end] if word != "--traceback"] + list(arguments[end:])
    debug = os.environ.get("PENSTOCK_DEBUG", "").lower() not in ("", "0", "false", "no")
    return words, debug or len(words) < len(arguments)


def _problems(error: PenstockError) -> Sequence[str]:
    return error.problems if isinstance(error, ConfigError) else [str(error)]


def _unexpected(error: Exception, words: Sequence[str], wanted: bool) -> int:
    again = "" if wanted else f" (penstock --traceback {words[0] if words else ''} … shows where)"
    return _fail(error, [f"unexpected {type(error).__name__}: {error}{again}"], 1, wanted)


def _fail(error: BaseException, lines: Sequence[str], code: int, wanted: bool) -> int:
    if wanted:
        traceback.print_exception(error)
    for line in lines:
        print(f"penstock: {printable(line)}", file=sys.stderr)  # noqa: T201 - the command line's own words
    return code


def _without_reader() -> int:
    """Whoever read our output has left: say nothing, and keep the interpreter from flushing into the closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _BROKEN_PIPE
