"""What a foreign service gets from ``pip install penstock``: four packages, both publishers, no worker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.working import declare

ROOT = Path(__file__).parents[2]

PUBLISH = """
import asyncio
from penstock import AsyncPublisher, JobKind, Publisher

KIND = JobKind("email.send", dict)
with Publisher() as publisher:
    publisher.publish(KIND, {"to": "ada@example.org"})

async def main():
    async with AsyncPublisher() as publisher:
        await publisher.publish_many(KIND.new({"to": "ada@example.org"}) for _ in range(10))

asyncio.run(main())
print("published")
"""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment with the producer's pins and the wheel of this checkout."""
    folder = tmp_path_factory.mktemp("producer")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    subprocess.run(
        [*install, "--require-hashes", "-r", str(ROOT / "requirements" / "producer.txt")], check=True, timeout=180
    )
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, timeout=60, capture_output=True)
    (wheel,) = folder.glob("penstock-*.whl")
    subprocess.run([*install, "--no-deps", str(wheel)], check=True, timeout=60)
    return python


def _run(python: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [python, *words],
        cwd=python.parent,
        env=clean | settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_a_producer_publishes_with_both_publishers(python: Path, vhost_url: str) -> None:
    await declare(vhost_url)
    done = _run(python, "-c", PUBLISH, RABBITMQ_URL=vhost_url)
    assert (done.returncode, done.stdout) == (0, "published\n"), done.stderr


def test_a_producers_install_has_no_worker_libraries(python: Path) -> None:
    code = (
        "import importlib.util as u; print([n for n in ('aio_pika', 'typer', 'yaml', 'structlog') if u.find_spec(n)])"
    )
    assert _run(python, "-c", code).stdout == "[]\n"


def test_the_wheel_brings_nothing_but_the_library(python: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('services', 'penstock_jobs', 'tests') if u.find_spec(n)])"
    assert _run(python, "-c", code).stdout == "[]\n"


def test_a_worker_command_there_says_in_one_line_what_to_install(python: Path) -> None:
    done = _run(python, "-m", "penstock", "worker", "shop:build")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "pip install 'penstock[worker]'" in line
