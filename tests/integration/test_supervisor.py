"""``--processes N`` and ``--reload``: signals go down, crashes are replaced within limits, nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from tests.support.processes import ROOT
from tests.support.waiting import wait_until


@dataclass
class Parent:
    """A supervisor under test, and what its children wrote."""

    process: subprocess.Popen[bytes]
    lines: Path
    log: Path

    def pids(self, word: str = "started") -> list[int]:
        """The children that wrote *word*, in order."""
        written = self.lines.read_text().splitlines() if self.lines.exists() else []
        return [int(line.split()[1]) for line in written if line.startswith(word)]

    def told(self) -> list[str]:
        """What the log said so far."""
        return [orjson.loads(line)["event"] for line in self.log.read_text().splitlines()]

    def started(self, count: int) -> list[int]:
        """Wait until *count* children have started."""
        wait_until(lambda: len(self.pids()) >= count, within=20)
        return self.pids()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where children write."""
    return tmp_path


@contextmanager
def supervising(folder: Path, count: int, **environment: str) -> Iterator[Parent]:
    """A supervisor of *count* children; all of them are gone after the block."""
    lines, log = folder / "lines", folder / "log"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CREW_")}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.parents", str(count)],
            cwd=ROOT,
            env={**kept, "CREW_LINES": str(lines), **environment},
            stderr=file,
        )
    parent = Parent(process, lines, log)
    try:
        yield parent
    finally:
        process.kill()
        process.wait()
        wait_until(lambda: not any(alive(pid) for pid in parent.pids()), within=10)


def alive(pid: int) -> bool:
    """Whether the process runs; one that has ended and waits to be reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_every_child_once_and_a_clean_end_is_0(folder: Path, number: signal.Signals) -> None:
    with supervising(folder, 3) as parent:
        pids = parent.started(3)
        parent.process.send_signal(number)
        assert parent.process.wait(30) == 0
        assert sorted(parent.pids("told")) == sorted(pids)
    assert parent.told().count("stopping: running jobs may end; signal again to stop now") == 1


def test_ctrl_c_in_a_terminal_reaches_the_parent_alone(folder: Path) -> None:
    with supervising(folder, 1) as parent:
        [pid] = parent.started(1)
        assert os.getpgid(pid) != os.getpgid(parent.process.pid)


def test_a_child_that_ends_badly_when_told_makes_the_end_1(folder: Path) -> None:
    with supervising(folder, 2, CREW_CODE="1") as parent:
        parent.started(2)
        parent.process.send_signal(signal.SIGTERM)
        assert parent.process.wait(30) == 1


def test_a_child_that_does_not_listen_is_killed(folder: Path) -> None:
    with supervising(folder, 1, CREW_DEAF="1", CREW_KILL_AFTER="1") as parent:
        [pid] = parent.started(1)
        parent.process.send_signal(signal.SIGTERM)
        assert parent.process.wait(30) == 1
        assert not alive(pid)
    assert "a worker did not stop and was killed" in parent.told()


def test_a_crashed_child_is_replaced_with_a_word(folder: Path) -> None:
    with supervising(folder, 2, CREW_ENDS="kill", CREW_BEHAVES_AFTER="1") as parent:
        parent.started(3)
        parent.process.send_signal(signal.SIGTERM)
        assert parent.process.wait(30) == 0
    assert parent.told().count("a worker crashed, another is started") == 1


def test_crashes_without_end_are_given_up_each_of_them_logged(folder: Path) -> None:
    with supervising(folder, 2, CREW_ENDS="9") as parent:
        assert parent.process.wait(30) == 1
    told = parent.told()
    assert told.count("a worker crashed, another is started") == 3
    assert told.count("giving up") == 1
    assert len(parent.pids()) <= 6


@pytest.mark.parametrize("code", [2, 4, 5])
def test_what_starting_again_cannot_mend_ends_all_with_its_code(folder: Path, code: int) -> None:
    with supervising(folder, 3, CREW_ENDS=str(code), CREW_BEHAVES_AFTER="1") as parent:
        assert parent.process.wait(30) == code
    assert len(parent.pids()) <= 3


def test_an_unreachable_broker_ends_all_with_3_unless_it_was_reached_before(folder: Path) -> None:
    with supervising(folder, 2, CREW_ENDS="3") as parent:
        assert parent.process.wait(30) == 3
    assert len(parent.pids()) <= 2


def test_a_child_that_lost_the_broker_is_started_again(folder: Path) -> None:
    with supervising(folder, 1, CREW_ENDS="3", CREW_READY="1", CREW_BEHAVES_AFTER="2") as parent:
        parent.started(3)
        parent.process.send_signal(signal.SIGTERM)
        assert parent.process.wait(30) == 0


def test_a_child_that_is_stopped_by_hand_is_replaced_and_is_no_crash(folder: Path) -> None:
    with supervising(folder, 1) as parent:
        for count in range(1, 7):
            os.kill(parent.started(count)[-1], signal.SIGTERM)
        parent.started(7)
        parent.process.send_signal(signal.SIGTERM)
        assert parent.process.wait(30) == 0
    assert "giving up" not in parent.told()


def test_children_do_not_outlive_a_parent_that_was_killed(folder: Path) -> None:
    with supervising(folder, 3) as parent:
        pids = parent.started(3)
        parent.process.kill()
        parent.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in pids), within=10)
        assert sorted(parent.pids("told")) == sorted(pids), "they were let drain, not cut off"


SHOP = """
from penstock import Handlers, JobKind, Worker
handlers = Handlers()
@handlers.on(JobKind("email.send", dict))
async def send(job):
    pass
def build():
    return Worker(handlers, queue="email", name="one")
"""


def test_real_workers_consume_in_every_process_and_drain_together(url: str, folder: Path) -> None:
    with shop_worker(folder, url, "--processes", "2") as (process, log):
        wait_until(lambda: log.read_text().count('"event":"ready"') == 2, within=40)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert log.read_text().count('"clean":true') == 2


def test_a_changed_file_starts_the_worker_anew_and_a_broken_one_waits_for_the_next_change(
    url: str, folder: Path
) -> None:
    with shop_worker(folder, url, "--reload") as (process, log):
        wait_until(lambda: log.read_text().count('"event":"ready"') == 1, within=40)
        rewrite_within_its_second(folder / "shop.py", SHOP.replace("one", "two"))
        wait_until(lambda: "two@" in log.read_text() and log.read_text().count('"event":"ready"') == 2, within=40)
        (folder / "shop.py").write_text("def build(:\n")
        wait_until(lambda: "change a file to start it again" in log.read_text(), within=40)
        (folder / "shop.py").write_text(SHOP.replace("one", "three"))
        wait_until(lambda: "three@" in log.read_text() and log.read_text().count('"event":"ready"') == 3, within=40)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def rewrite_within_its_second(path: Path, text: str) -> None:
    """Change a file so that its age in seconds and its size stay: all that compiled code is told apart by."""
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size


@contextmanager
def shop_worker(folder: Path, url: str, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """``penstock worker shop:build`` with *flags*, and its log."""
    (folder / "shop.py").write_text(SHOP)
    (folder / "pyproject.toml").touch()
    (folder / "logs").mkdir()
    log = folder / "logs" / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", "worker", "shop:build", *flags],
            cwd=folder,
            env={"RABBITMQ_URL": url, "PATH": "/usr/bin:/bin"},
            stderr=file,
        )
    try:
        yield process, log
    finally:
        process.kill()
        process.wait()
