"""A supervisor as a process of its own, over ``tests.support.crew``: ``python -m tests.support.parents COUNT``."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from penstock import logs
from penstock.settings import Settings
from penstock.supervisor import Patience, Supervisor


def main() -> None:
    """Supervise, patiently enough for a test."""
    logs.setup(Settings.load())
    patience = Patience(crashes=4, first_wait=timedelta(seconds=0.05), longest_wait=timedelta(seconds=0.2))
    command = [sys.executable, "-m", "tests.support.crew"]
    supervisor = Supervisor(command, int(sys.argv[1]), kill_after=timedelta(seconds=2), patience=patience)
    sys.exit(asyncio.run(supervisor.run()))


if __name__ == "__main__":
    main()
