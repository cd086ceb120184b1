"""The public API as mypy --strict sees it: right code passes, every wrong line is refused for the right reason."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

_MARK = re.compile(r"# expect: ([\w-]+)")
_ERROR = re.compile(r"rejected\.py:(\d+): error: .*\[([\w-]+)\]$")


def _mypy(file: str) -> str:
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--enable-error-code=unused-coroutine"]
    command += [f"--cache-dir={ROOT / '.mypy_cache' / 'typing'}", str(HERE / file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False).stdout


def test_right_code_passes() -> None:
    assert _mypy("accepted.py").startswith("Success")


def test_every_wrong_line_is_refused() -> None:
    lines = (HERE / "rejected.py").read_text().splitlines()
    expected = {(number, mark[1]) for number, line in enumerate(lines, 1) if (mark := _MARK.search(line))}
    found = {(int(error[1]), error[2]) for line in _mypy("rejected.py").splitlines() if (error := _ERROR.search(line))}
    assert found == expected
