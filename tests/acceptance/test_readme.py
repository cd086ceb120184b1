"""The README's first job, done as a newcomer does it: the file and the commands are read from the README itself."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder with the README's ``shop.py`` and the topology that comes with the clone."""
    (tmp_path / "shop.py").write_text(README.split("```python\n# shop.py\n")[1].split("```")[0])
    shutil.copytree(ROOT / "rabbitmq", tmp_path / "rabbitmq")
    return tmp_path


@contextmanager
def _worker(folder: Path, environment: dict[str, str]) -> Iterator[Path]:
    """The worker of the README, and the file its output goes to."""
    (line,) = re.findall(r"^penstock (worker shop:build --apply) &", README, re.MULTILINE)
    output = folder / "worker.log"
    with output.open("wb") as log:
        process = subprocess.Popen(
            [BIN / "penstock", *line.split()], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield output
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, output.read_text()


def test_the_first_job_of_the_readme_runs(folder: Path, vhost_url: str) -> None:
    environment = os.environ | {"RABBITMQ_URL": vhost_url, "PYTHONUNBUFFERED": "1"}
    with _worker(folder, environment) as output:
        wait_until(lambda: "ready" in output.read_text(), within=60)
        shop = subprocess.run(
            [sys.executable, "shop.py"],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        grace = ["penstock", "publish", "email.welcome", '{"name": "Grace"}']
        assert " ".join([*grace[:-1], f"'{grace[-1]}'"]) in README
        subprocess.run([BIN / grace[0], *grace[1:]], env=environment, timeout=30, check=True, capture_output=True)
        wait_until(lambda: "welcome Grace, attempt 1" in output.read_text(), within=15)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", shop.stdout.strip())
    assert "welcome Ada, attempt 1" in output.read_text()
