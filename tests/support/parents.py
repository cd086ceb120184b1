"""A supervisor as a process of its own, over ``tests.support.crew``: ``python -m tests.support.parents COUNT``."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

from penstock import logs
from penstock.settings import Settings
from penstock.supervisor import Patience, Supervisor

#: Seconds that a child may take to stop.
KILL_AFTER = "CREW_KILL_AFTER"


def main() -> None:
    """Supervise, patiently enough for a test."""
    logs.setup(Settings.load())
    patience = Patience(crashes=4, first_wait=timedelta(seconds=0.05), longest_wait=timedelta(seconds=0.2))
    command = [sys.executable, "-m", "tests.support.crew"]
    kill_after = timedelta(seconds=float(os.environ.get(KILL_AFTER, "30")))
    supervisor = Supervisor(command, int(sys.argv[1]), kill_after=kill_after, patience=patience)
    sys.exit(asyncio.run(supervisor.run()))


if __name__ == "__main__":
    main()
