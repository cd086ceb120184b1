"""The rivals' environment: made once from hashed pins, apart from the library's own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tests.bench.lineup import RIVALS_PYTHON

_PINS = Path(__file__).with_name("rivals.txt")
_INSTALL_WITHIN = 600


def ensure_installed() -> None:
    """Install the rivals as pinned, byte code compiled, unless that was done. Raises `CalledProcessError`."""
    mark = RIVALS_PYTHON.parents[1] / "installed"
    pins = hashlib.sha256(_PINS.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == pins:
        return
    if not RIVALS_PYTHON.exists():
        _run(sys.executable, "-m", "venv", str(RIVALS_PYTHON.parents[1]))
    _run(str(RIVALS_PYTHON), "-m", "pip", "install", "-qq", "--compile", "--require-hashes", "-r", str(_PINS))
    mark.write_text(pins)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=_INSTALL_WITHIN)
