"""For users' own tests: a real worker over a broker in memory, with a clock that the test turns."""

from penstock.brokers.memory import MemoryBroker
from penstock.testing.clock import ManualClock
from penstock.testing.worker_test import WorkerTest

__all__ = ["ManualClock", "MemoryBroker", "WorkerTest"]
