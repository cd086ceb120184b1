"""A worker process without a broker, for its parents: it lives and dies as its environment says.

``python -m tests.support.crew``: writes a line with its process id when it has started, and one when it is told to end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

from penstock.parent import Tie

#: Where it writes; how it ends by itself (an exit code, ``kill``, or not at all); after how many starts it behaves.
LINES, ENDS, BEHAVES_AFTER = "CREW_LINES", "CREW_ENDS", "CREW_BEHAVES_AFTER"


def main() -> None:
    """Start, say so, and wait for the end."""
    lines = Path(os.environ[LINES])
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    tie = Tie()
    tie.watch(told.set)
    _write(lines, "started")
    if os.environ.get("CREW_READY"):
        tie.ready()
    ends = os.environ.get(ENDS, "")
    if ends and _place(lines) <= int(os.environ.get(BEHAVES_AFTER, "1000")):
        _end(ends)
    while not told.wait(0.2):  # a signal interrupts only a wait that ends by itself
        pass
    _write(lines, "told")
    if os.environ.get("CREW_DEAF"):
        threading.Event().wait(60)
    sys.exit(int(os.environ.get("CREW_CODE", "0")))


def _end(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.exit(int(how))


def _place(lines: Path) -> int:
    """The how manieth it was to start: others may have written since."""
    started = [line for line in lines.read_text().splitlines() if line.startswith("started")]
    return started.index(f"started {os.getpid()}") + 1


def _write(lines: Path, word: str) -> None:
    handle = os.open(lines, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, f"{word} {os.getpid()}\n".encode())
    finally:
        os.close(handle)


if __name__ == "__main__":
    main()
