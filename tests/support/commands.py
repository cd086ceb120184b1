"""The command line as its users run it: a process of its own, judged by exit code and output."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


def penstock(*words: str, **environment: str) -> Finished:
    """Run ``penstock`` with *words*; *environment* adds to this process's own, without its broker."""
    return _finished(words, environment)


def penstock_in(folder: Path, *words: str, **environment: str) -> Finished:
    """As ``penstock``, in *folder*."""
    return _finished(words, environment, cwd=folder)


def penstock_fed(stdin: bytes, *words: str, **environment: str) -> Finished:
    """As ``penstock``, with *stdin* to read."""
    return _finished(words, environment, stdin=stdin)


def _finished(
    words: Sequence[str], environment: Mapping[str, str], *, stdin: bytes = b"", cwd: Path | None = None
) -> Finished:
    kept = {name: value for name, value in os.environ.items() if "AMQP" not in name and "RABBITMQ" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        env={**kept, **environment},
        input=stdin,
        cwd=cwd,
        capture_output=True,
        timeout=50,
        check=False,
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())


def penstock_here(*words: str, **environment: str) -> Finished:
    """As ``penstock``, but in this process, whose start is saved; to be called outside of event loops."""
    from penstock.cli.main import run

    kept = {name: value for name, value in os.environ.items() if "AMQP" not in name and "RABBITMQ" not in name}
    out, err = io.StringIO(), io.StringIO()
    handlers, level = logging.root.handlers, logging.root.level
    try:
        with patch.dict(os.environ, {**kept, **environment}, clear=True), redirect_stdout(out), redirect_stderr(err):
            code = run(words)
    finally:
        logging.root.handlers = handlers
        logging.root.setLevel(level)
    return Finished(code, out.getvalue(), err.getvalue())
