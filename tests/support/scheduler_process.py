"""``penstock scheduler`` as a real process under a test, and the lines of its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path


@contextmanager
def scheduler(url: str, file: Path, number: int, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A process, and the file of its log, which is added to."""
    log = file.with_name(f"log{number}")
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "scheduler", str(file)],
            env={**os.environ, "RABBITMQ_URL": url, "PENSTOCK_LOG_FORMAT": "json", **settings},
            stderr=stream,
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()


def told(log: Path, words: str) -> int:
    """How often *words* stand in the log."""
    return log.read_text().count(words)


def led_since(log: Path) -> float | None:
    """When the process of this log began to lead (seconds since 1970 UTC), by its own clock; None before it does."""
    for line in log.read_text().splitlines():
        if '"event":"leading"' in line and line.endswith("}"):
            return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
    return None
