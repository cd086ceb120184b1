"""The media service as a worker: files made and refused, deadlines and memory kept, nothing left of what was killed."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # results are JSON

import pytest

from penstock import AsyncPublisher, Done, NewJob, Retried
from penstock.events import JobFinished
from penstock_jobs import (
    IMAGE_RESIZE,
    VIDEO_THUMBNAIL,
    VIDEO_TRANSCODE,
    ImageResize,
    VideoThumbnail,
    VideoTranscode,
)
from services.media.app import build
from tests.support.clips import a_bomb, a_large_clip, a_long_clip, make_clips, probed, slow_ffmpeg
from tests.support.processes import WorkerProcess, alive, worker_process
from tests.support.waiting import eventually
from tests.support.working import LEVELS, empty, foreign, take_all, working

FACTORY = "services.media.app:build"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source folder that has clips in ``july``."""
    folder = tmp_path_factory.mktemp("source")
    make_clips(folder / "july")
    a_long_clip(folder / "july" / "long.mp4")
    a_large_clip(folder / "july" / "large.mp4")
    (folder / "july" / "bomb.png").write_bytes(a_bomb(50_000, 50_000))
    return folder


@pytest.fixture(name="url")
async def _url(our_url: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A broker with our topology and empty queues, whose services of this test read clips and write to ``out``."""
    monkeypatch.setenv("MEDIA_SOURCE_DIR", str(clips))
    monkeypatch.setenv("MEDIA_OUTPUT_DIR", str(tmp_path / "out"))
    await empty(our_url, "jobs.media", "jobs.media.dead", *LEVELS)
    return our_url


def left(folder: Path) -> list[str]:
    """The names of all files in *folder*, hidden ones too."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def transcode(source: str, job_id: str, **wanted: Any) -> NewJob[Any]:
    return VIDEO_TRANSCODE.new(VideoTranscode(folder="july", source=source, **wanted), id=job_id)


def resize(source: str, job_id: str) -> NewJob[Any]:
    return IMAGE_RESIZE.new(ImageResize(folder="july", source=source, width=32, height=32), id=job_id)


async def outcomes(url: str, *jobs: NewJob[Any]) -> Mapping[str, Any]:
    """What becomes of the first attempts of *jobs*, by their ids."""
    worker = build()
    async with (
        working(url, worker.handlers, queue="media", factory=FACTORY, slots=worker.slots) as watched,
        AsyncPublisher(url) as publisher,
    ):
        await publisher.publish_many(jobs)
        finished = await watched.until(JobFinished, len(jobs), within=40)
    return {event.id: event.outcome for event in finished}


async def test_files_are_made_and_what_is_none_becomes_a_dead_letter_with_the_reason(url: str, tmp_path: Path) -> None:
    found = await outcomes(
        url,
        transcode("good.mp4", "video"),
        VIDEO_THUMBNAIL.new(VideoThumbnail(folder="july", source="good.mp4"), id="frame"),
        transcode("text.mp4", "text"),
        transcode("cut.mp4", "cut"),
        resize("bomb.png", "bomb"),
        resize("text.mp4", "no-image"),
    )
    assert {job for job, outcome in found.items() if isinstance(outcome, Done)} == {"video", "frame"}
    assert left(tmp_path / "out") == ["good-frame.jpg", "good-video.mp4"]
    assert found["video"].result["bytes"] == (tmp_path / "out" / "july" / "good-video.mp4").stat().st_size
    async with foreign(url) as channel:
        letters = {letter.message_id: letter.headers for letter in await take_all(channel, "jobs.media.dead")}
    assert letters.keys() == {"text", "cut", "bomb", "no-image"}
    assert {headers["penstock-reason"] for headers in letters.values()} == {"rejected"}
    errors = {job: str(headers["penstock-error"]) for job, headers in letters.items()}
    assert errors["text"] == "july/text.mp4: Invalid data found when processing input"
    assert "corrupt input packet" in errors["cut"]
    assert "2500000000 pixels" in errors["bomb"]
    assert "no image of a format that is read" in errors["no-image"]


async def test_an_ffmpeg_that_is_deaf_is_killed_with_all_it_has_started(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIA_FFMPEG", slow_ffmpeg(tmp_path, deaf=True))
    monkeypatch.setenv("MEDIA_TIMEOUT", "10")
    monkeypatch.setenv("MEDIA_STOP_GRACE", "0.2")
    outcome = (await outcomes(url, transcode("long.mp4", "deaf")))["deaf"]
    assert isinstance(outcome, Retried)
    assert outcome.failure.type == "penstock.errors.JobTimeout"
    assert "ran past its deadline of 10.2 s and was killed" in outcome.failure.text
    pid = int((tmp_path / "pid").read_text())
    await eventually(lambda: not alive(pid))
    assert left(tmp_path / "out") == [".long-deaf.mp4.part"], "no file that looks as if it were one"


async def test_an_ffmpeg_that_takes_more_memory_than_it_may_fails_alone(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIA_MEMORY", "512")
    monkeypatch.setenv("MEDIA_SLOTS", "1")
    found = await outcomes(url, transcode("large.mp4", "large", height=2160), transcode("good.mp4", "small"))
    assert isinstance(found["large"], Retried)
    assert "malloc of size" in found["large"].failure.text
    assert isinstance(found["small"], Done)
    assert left(tmp_path / "out") == ["good-small.mp4"]


def progress_in(log: Path) -> list[dict[str, Any]]:
    """The lines of a worker's log that say how far a video is."""
    lines = (line for line in log.read_text().splitlines() if "as fast as it plays" in line)
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_that_ends_takes_ffmpeg_with_it_and_the_next_one_makes_the_file(
    url: str, tmp_path: Path, how: signal.Signals
) -> None:
    async with AsyncPublisher(url) as publisher:
        await publisher.publish_many([transcode("long.mp4", "again", height=16)])
    service = {"module": "tests.support.service_apps", "factory": "media"}
    slow = {"MEDIA_FFMPEG": slow_ffmpeg(tmp_path), "MEDIA_PROGRESS": "0.1", "PENSTOCK_DRAIN_TIMEOUT": "0.1"}
    doomed = WorkerProcess(url, tmp_path, **service, **slow)
    await doomed.start()
    try:
        draft = tmp_path / "out" / "july" / ".long-again.mp4.part"
        [told, *_] = await eventually(lambda: progress_in(doomed.log), within=20)
        assert (told["job_id"], told["kind"], told["level"]) == ("again", "video.transcode", "info")
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
        doomed.signal(how)
        assert await doomed.ended() == (1 if how is signal.SIGTERM else -how)
    finally:
        await doomed.kill()
    await eventually(lambda: not alive(pid))
    assert left(tmp_path / "out") == [draft.name]
    made = draft.with_name("long-again.mp4")
    async with worker_process(url, tmp_path, **service):
        await eventually(made.exists, within=30)
    assert left(tmp_path / "out") == [made.name]
    assert probed(made)["video"]["height"] == 16
