"""Says what the figures were measured on: the machine, and the version of everything that took part."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.lineup import RIVALS_PYTHON

_OURS = ("penstock", "pika", "uvloop", "orjson", "pydantic", "psycopg", "redis")
_RIVALS = ("celery", "kombu", "dramatiq", "taskiq", "taskiq-aio-pika", "faststream", "aio-pika")
_SERVERS = {"postgresql": "psql", "redis-server": "redis-server"}
_ASK = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def machine() -> dict[str, str | float]:
    """Processor, cores, memory, operating system, and how soon the disk has what is written to it."""
    return {
        "processor": _field("/proc/cpuinfo", r"model name\s*: (.*)") or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(_field("/proc/meminfo", r"MemTotal:\s*(\d+)") or 0) * 1024 / 1e9),
        "system": _field("/etc/os-release", r'PRETTY_NAME="(.*)"') or platform.system(),
        "kernel": platform.release(),
        "fsync_ms": _fsync_ms(),
        "load_average": round(os.getloadavg()[2], 1),
    }


def versions() -> dict[str, str]:
    """Python and the packages that took part, as installed."""
    found = {"python": platform.python_version(), **_installed(sys.executable, _OURS)}
    if RIVALS_PYTHON.exists():
        found |= _installed(str(RIVALS_PYTHON), _RIVALS)
    return found | {"sqlite": sqlite3.sqlite_version} | _servers()


def _servers() -> dict[str, str]:
    """The versions of the servers, by the programs that come with them."""
    found = {}
    for name, program in _SERVERS.items():
        if shutil.which(program):
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
            found[name] = (re.findall(r"\d+(?:\.\d+)+", said) or ["?"])[0]
    return found


def _fsync_ms(times: int = 100) -> float:
    """The median of *times* writes of 8 KiB to the disk that the databases are on, in milliseconds."""
    seconds = []
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(times):
            begin = time.perf_counter()
            os.pwrite(file.fileno(), bytes(8192), 0)
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - begin)
    return round(statistics.median(seconds) * 1000, 2)


def _installed(python: str, packages: tuple[str, ...]) -> dict[str, str]:
    done = subprocess.run([python, "-c", _ASK, *packages], capture_output=True, text=True, check=True, timeout=30)
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


def _field(file: str, pattern: str) -> str:
    try:
        found = re.search(pattern, Path(file).read_text())
    except OSError:
        return ""
    return found[1].strip() if found else ""
