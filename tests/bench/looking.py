"""What it takes to look: ``penstock status`` and ``penstock doctor`` on a broker with 500 queues, as their users wait.

``python -m tests.bench.looking``; the targets are 1 s and 3 s.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from penstock.applying import apply
from penstock.testing.broker_node import BrokerInfo, PrivateBroker
from penstock.topology.reading import parse_spec

#: With their dead letters, the levels and what else belongs to it: 507 queues.
FAMILIES = 240
ROUNDS = 5

TOPOLOGY = "queues: {" + ", ".join(f"q{number:03}: [k{number:03}.*]" for number in range(FAMILIES)) + "}\n"


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, PrivateBroker(Path(folder) / "node") as info:
        file = Path(folder) / "topology.yaml"
        file.write_text(TOPOLOGY)
        asyncio.run(apply(info.amqp_url, parse_spec(TOPOLOGY)))
        print(f"RabbitMQ {info.version}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # noqa: T201
        for words in (["--version"], ["status"], ["queues"], ["doctor", "--timeout", "20", "--file", str(file)]):
            took = sorted(_seconds(info, words) for _ in range(ROUNDS))
            print(f"penstock {words[0]:<10} median {statistics.median(took):.2f} s, best {took[0]:.2f} s")  # noqa: T201


def _seconds(info: BrokerInfo, words: list[str]) -> float:
    settings = {"RABBITMQ_URL": info.amqp_url, "RABBITMQ_MANAGEMENT_URL": info.management_url}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "penstock", *words],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        timeout=120,
        check=True,
    )
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
