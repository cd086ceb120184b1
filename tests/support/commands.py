"""The command line as its users run it: a process of its own, judged by exit code and output."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str


def penstock(*words: str, stdin: bytes | None = None, cwd: Path | None = None, **environment: str) -> Finished:
    """Run ``penstock`` with *words*; *environment* adds to this process's own, without its broker."""
    kept = {name: value for name, value in os.environ.items() if "AMQP" not in name and "RABBITMQ" not in name}
    done = subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        env={**kept, **environment},
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        cwd=cwd,
        capture_output=True,
        timeout=50,
        check=False,
    )
    return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())
