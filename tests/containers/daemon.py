"""A Docker daemon for the tests: the one that answers already, or a private one that ends with them."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import wait_until

#: Images are kept here from run to run, as the trees are that they are made of; nothing else is.
KEPT = Path(os.environ.get("PENSTOCK_CHROOTS", "/var/cache/penstock")) / "docker"


@contextmanager
def daemon() -> Iterator[dict[str, str]]:
    """The variables by which ``docker`` finds a daemon; a private one has data, state and socket of its own."""
    if _answers({}):
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="penstock-docker-") as name:
        state = Path(name)
        where = {"DOCKER_HOST": f"unix://{state}/docker.sock"}
        with (state / "log").open("wb") as log:
            process = subprocess.Popen(_command(state), stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(lambda: process.poll() is not None or _answers(where), within=60)
            assert process.poll() is None, (state / "log").read_text()[-2000:]
            print(f"no Docker daemon answers: started a private one, whose images are in {KEPT}")  # noqa: T201
            yield where
            _docker(where, "image", "prune", "--force", "--filter", "until=24h")  # stages of old builds
        finally:
            process.terminate()
            process.wait(60)


def _command(state: Path) -> list[str]:
    places = ["--data-root", str(KEPT), "--exec-root", str(state / "exec"), "--pidfile", str(state / "pid")]
    return ["dockerd", "--host", f"unix://{state}/docker.sock", *places]


def _answers(where: dict[str, str]) -> bool:
    return _docker(where, "version", "--format", "{{.Server.Version}}").returncode == 0


def _docker(where: dict[str, str], *words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", *words], env=os.environ | where, capture_output=True, timeout=60, check=False)
