"""The files of services: whole or not there, one writer at a time, and nothing outside of their folder."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

import pytest

from penstock.service_files import Busy, Outside, source_in, whole_file


@pytest.fixture(name="root")
def _root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "july").mkdir(parents=True)
    (tmp_path / "root" / "july" / "clip.mp4").write_bytes(b"data")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path / "root"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_source_is_read_by_its_descriptor(root: Path) -> None:
    with source_in(root, "july", "clip.mp4") as source:
        (root / "july" / "clip.mp4").unlink()  # whatever becomes of the name
        assert os.read(source, 100) == b"data"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(source)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("..", "secret"),
        ("july", "../../secret"),
        ("july", ".."),
        ("july", ""),
        ("", "secret"),
        ("july/..", "july"),
        ("july", "clip.mp4\0.png"),
        ("july", "link.mp4"),
        ("away", "secret"),
        ("july", "within.mp4"),
        ("july", "folder"),
        ("july", "pipe"),
        ("july", "socket"),
        ("file", "clip.mp4"),
    ],
)
def test_no_name_leads_out_of_the_folder_or_to_what_is_no_file(root: Path, folder: str, name: str) -> None:
    july = root / "july"
    (july / "link.mp4").symlink_to(root.parent / "secret")
    (july / "within.mp4").symlink_to("clip.mp4")
    (root / "away").symlink_to(root.parent)
    (july / "folder").mkdir()
    os.mkfifo(july / "pipe")
    (root / "file").touch()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(os.path.relpath(july / "socket"))  # such a path has to be short
        with pytest.raises(Outside), source_in(root, folder, name):
            pass


def test_a_source_that_is_not_there_yet_may_come(root: Path) -> None:
    for folder, name in (("july", "later.mp4"), ("august", "clip.mp4")):
        with pytest.raises(FileNotFoundError), source_in(root, folder, name):
            pass


def test_a_file_is_not_seen_before_it_is_complete(root: Path) -> None:
    with whole_file(root / "out", "july", "made.mp4") as target:
        os.write(target, b"half")
        assert names(root / "out" / "july") == [".made.mp4.part"]
        os.write(target, b" and whole")
    assert names(root / "out" / "july") == ["made.mp4"]
    assert (root / "out" / "july" / "made.mp4").read_bytes() == b"half and whole"
    assert (root / "out" / "july" / "made.mp4").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("broken", ["write", "fsync", "rename"])
def test_what_fails_leaves_what_was_there_before(root: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, broken, fails)
    with pytest.raises(OSError, match="disk full"), whole_file(root, "july", "clip.mp4") as target:
        os.write(target, b"new")
    monkeypatch.undo()
    assert names(root / "july") == ["clip.mp4"]
    assert (root / "july" / "clip.mp4").read_bytes() == b"data"


def test_what_a_killed_writer_has_left_is_written_over(root: Path) -> None:
    (root / "july" / ".made.mp4.part").write_bytes(b"a long way to where it was killed")
    with whole_file(root, "july", "made.mp4") as target:
        os.write(target, b"new")
    assert names(root / "july") == ["clip.mp4", "made.mp4"]
    assert (root / "july" / "made.mp4").read_bytes() == b"new"


def test_only_one_writes_a_file_at_a_time(root: Path) -> None:
    with whole_file(root, "july", "made.mp4") as target:
        os.write(target, b"first")
        with pytest.raises(Busy), whole_file(root, "july", "made.mp4"):
            pass
        with whole_file(root, "july", "other.mp4"):
            pass
    assert (root / "july" / "made.mp4").read_bytes() == b"first"
    with whole_file(root, "july", "made.mp4") as target:
        os.write(target, b"second")
    assert (root / "july" / "made.mp4").read_bytes() == b"second"


def test_a_draft_that_was_put_into_its_place_meanwhile_is_no_draft(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, draft = fcntl.flock, root / "july" / ".made.mp4.part"
    draft.write_bytes(b"of another run")

    def late(handle: int, how: int) -> None:
        """The other run ends between the opening of its draft and the lock on it."""
        if draft.exists() and draft.read_bytes():
            draft.rename(root / "july" / "made.mp4")
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with whole_file(root, "july", "made.mp4") as target:
        assert (root / "july" / "made.mp4").read_bytes() == b"of another run"
        os.write(target, b"ours")
    assert names(root / "july") == ["clip.mp4", "made.mp4"]
    assert (root / "july" / "made.mp4").read_bytes() == b"ours"


@pytest.mark.parametrize(
    ("folder", "name"), [("..", "x"), ("away", "x"), ("july", "../x"), ("july", "a/b"), ("file", "x")]
)
def test_no_name_leads_out_of_the_output_folder(root: Path, folder: str, name: str) -> None:
    (root / "away").symlink_to(root.parent)
    (root / "file").touch()
    with pytest.raises(Outside), whole_file(root, folder, name):
        pass
    assert names(root.parent) == ["root", "secret"]


def test_a_draft_that_is_a_link_is_not_followed(root: Path) -> None:
    (root / "july" / ".made.mp4.part").symlink_to(root.parent / "secret")
    with pytest.raises(Outside), whole_file(root, "july", "made.mp4"):
        pass
    assert (root.parent / "secret").read_bytes() == b"secret"


def test_a_folder_that_cannot_be_made_is_no_fault_of_the_name() -> None:
    with pytest.raises(OSError, match="/proc"), whole_file(Path("/proc/penstock"), "july", "made.mp4"):
        pass
