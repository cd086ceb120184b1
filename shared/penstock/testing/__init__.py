"""For users' own tests: a real worker over a broker in memory, with a clock that the test turns."""

from penstock.brokers.memory import MemoryBroker
from penstock.schedules.model import Schedule
from penstock.schedules.reading import parse_schedules, read_schedules
from penstock.testing.clock import ManualClock
from penstock.testing.worker_test import WorkerTest
from penstock.topology.reading import parse_spec, read_spec

__all__ = [
    "ManualClock",
    "MemoryBroker",
    "Schedule",
    "WorkerTest",
    "parse_schedules",
    "parse_spec",
    "read_schedules",
    "read_spec",
]
