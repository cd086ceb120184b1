"""The C client's place among the entrants: builds ``ceiling.c`` when it is new and hands the role on to it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.bench.entrants.common import BODY_SIZE, LIMIT, PREFETCH, WINDOW, Figures, broker_url, run_role

QUEUE = "bench.c"
SOURCE = Path(__file__).with_name("ceiling.c")
PROGRAM = Path(__file__).resolve().parents[3] / ".penstock" / "bench" / "ceiling"


def available() -> bool:
    """Whether there is a compiler and librabbitmq, and the program could be built from them."""
    try:
        _build()
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _build() -> None:
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= SOURCE.stat().st_mtime:
        return
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-O2", "-Wall", "-Wextra", "-o", str(PROGRAM), str(SOURCE), "-lrabbitmq"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def _run(role: str, count: int) -> Figures:
    _build()
    sizes = [str(size) for size in (count, WINDOW, PREFETCH, BODY_SIZE)]
    command = [str(PROGRAM), broker_url(), QUEUE, role, *sizes]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=LIMIT)
    if done.returncode:  # it has said why
        raise SystemExit(done.returncode)
    figures: Figures = json.loads(done.stdout)
    return figures


def publish_async(count: int) -> Figures:
    """Pipelined confirms."""
    return _run("publish_async", count)


def work_async(count: int) -> Figures:
    """An ack per message."""
    return _run("work_async", count)


def seed(count: int) -> Figures:
    """Declare the queue and publish one message into it."""
    return _run("publish_async", count)


ROLES = {"seed": seed, "publish_async": publish_async, "work_async": work_async}

if __name__ == "__main__":
    run_role(ROLES)
