"""ffmpeg as the media service runs it: what it makes, what it refuses and in which words, and what it never touches."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any  # arguments of several kinds

import pytest
from PIL import Image

from penstock import Job, JobTimeout, Reject
from penstock.service_files import source_in
from penstock_jobs.media import VideoThumbnail, VideoTranscode
from services.media import programs
from services.media.ffmpeg import Bounds, Ffmpeg, Programs
from services.media.handlers import Media
from services.media.images import Pillow
from services.media.ports import Failed
from tests.support.clips import SECONDS, a_long_clip, ffmpeg, make_clips, probed, slow_ffmpeg
from tests.support.processes import alive

BOUNDS = Bounds(max_seconds=10, max_pixels=100_000, max_bytes=10_000_000, threads=1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source folder that has clips in ``july``."""
    folder = tmp_path_factory.mktemp("source")
    make_clips(folder / "july")
    return folder


@pytest.fixture(name="service")
def _service(clips: Path, tmp_path: Path) -> Callable[..., Media]:
    def service(bounds: Bounds = BOUNDS, deadline: float = 30, program: str = "ffmpeg") -> Media:
        videos = Ffmpeg(Programs.found(program, "ffprobe"), bounds, timedelta(seconds=1))
        return Media(clips, tmp_path / "out", videos, Pillow(1_000_000), timedelta(seconds=deadline))

    return service


def to_transcode(source: str, **wanted: Any) -> Job[VideoTranscode]:
    return Job("id-1", "video.transcode", VideoTranscode(folder="july", source=source, **wanted))


def to_show(source: str, **wanted: Any) -> Job[VideoThumbnail]:
    return Job("id-1", "video.thumbnail", VideoThumbnail(folder="july", source=source, **wanted))


def left(folder: Path) -> list[str]:
    """The names of all files in *folder*, hidden ones too."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


async def test_a_video_becomes_what_browsers_play_without_what_it_said_of_itself(
    service: Callable[..., Media], tmp_path: Path
) -> None:
    answer = await service().transcode(to_transcode("good.mp4", height=16))
    path = tmp_path / "out" / "july" / "good-id-1.mp4"
    found = probed(path)
    assert answer == {"file": path.name, "bytes": path.stat().st_size, "width": 22, "height": 16, "seconds": SECONDS}
    assert (found["video"]["codec_name"], found["video"]["pix_fmt"]) == ("h264", "yuv420p")
    assert (found["video"]["width"], found["video"]["height"]) == (22, 16)
    assert (found["audio"]["codec_name"], found["audio"]["channels"]) == ("aac", 2)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "it can be played while it is loaded"
    assert b"secret place" not in data
    assert b"+52.5" not in data
    assert left(tmp_path / "out") == [path.name]


async def test_a_video_is_never_enlarged_and_may_be_silent(service: Callable[..., Media], tmp_path: Path) -> None:
    await service().transcode(to_transcode("good.mkv", height=720, audio=False, quality="small"))
    found = probed(tmp_path / "out" / "july" / "good-id-1.mp4")
    assert (found["video"]["width"], found["video"]["height"]) == (64, 48)
    assert "audio" not in found


async def test_a_second_run_writes_the_same_bytes(service: Callable[..., Media], tmp_path: Path) -> None:
    path = tmp_path / "out" / "july" / "good-id-1.mp4"
    both = []
    for _ in range(2):
        await service().transcode(to_transcode("good.mp4"))
        both.append(path.read_bytes())
    assert both[0] == both[1]


@pytest.mark.parametrize(("at", "red"), [(None, True), (0, True), (0.45, False), (0.85, False), (1.0, False)])
async def test_a_thumbnail_is_the_frame_at_that_time_or_the_last_one(
    service: Callable[..., Media], tmp_path: Path, at: float | None, red: bool
) -> None:
    answer = await service().thumbnail(to_show("halves.mp4", at=at, width=32))
    path = tmp_path / "out" / "july" / "halves-id-1.jpg"
    assert answer == {"file": path.name, "bytes": path.stat().st_size, "width": 32, "height": 24}
    with Image.open(path) as image:
        pixel = image.convert("RGB").getpixel((16, 12))
    assert isinstance(pixel, tuple)
    assert (pixel[0] > 200, pixel[2] > 200) == (red, not red)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("text.mp4", "Invalid data found when processing input"),
        ("empty.mp4", "Invalid data found when processing input"),
        ("cut.mp4", "corrupt input packet|partial file"),
        ("cut-index.mp4", "moov atom not found"),
        ("cut.mkv", "File ended prematurely"),
        ("audio.mp4", "no video stream"),
    ],
)
async def test_what_cannot_be_played_to_its_end_is_rejected_with_ffmpegs_reason(
    service: Callable[..., Media], tmp_path: Path, source: str, words: str
) -> None:
    with pytest.raises(Reject, match=f"july/{source}: .*({words})") as caught:
        await service().transcode(to_transcode(source))
    assert "\n" not in str(caught.value)
    assert "/proc" not in str(caught.value)
    assert left(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        (Bounds(10, 3000, 10_000_000, 1), "Picture size 64x48 exceeds|frames of at most 3000 pixels"),
        (Bounds(0.5, 100_000, 10_000_000, 1), "it is 0.8 s long, and at most 0.5 s"),
        (Bounds(10, 100_000, 2000, 1), "would be larger than MEDIA_MAX_BYTES"),
    ],
)
async def test_what_is_beyond_bounds_is_rejected(
    service: Callable[..., Media], tmp_path: Path, bounds: Bounds, words: str
) -> None:
    with pytest.raises(Reject, match=words):
        await service(bounds).transcode(to_transcode("good.mp4"))
    assert left(tmp_path / "out") == []


async def test_a_thumbnail_from_behind_the_end_is_rejected(service: Callable[..., Media]) -> None:
    with pytest.raises(Reject, match=r"there is nothing at 1.5 s: it is 1 s long"):
        await service().thumbnail(to_show("halves.mp4", at=1.5))


@pytest.fixture(name="door")
def _door() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        yield door


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9.0,\n{}\n#EXT-X-ENDLIST\n"
TRAPS = {
    "list.m3u8": PLAYLIST.format("http://127.0.0.1:{port}/a.ts"),
    "list.mp4": PLAYLIST.format("http://127.0.0.1:{port}/a.ts"),
    "files.mp4": PLAYLIST.format("file://{secret}"),
    "pieces.mp4": "ffconcat version 1.0\nfile '{secret}'\n",
    "session.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    "dash.mp4": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'profiles="urn:mpeg:dash:profile:isoff-live:2011"><BaseURL>http://127.0.0.1:{port}/</BaseURL><Period/></MPD>',
}


@pytest.mark.parametrize("name", TRAPS)
async def test_a_file_that_names_others_to_be_read_is_rejected_and_none_of_them_is(
    clips: Path, service: Callable[..., Media], tmp_path: Path, door: socket.socket, name: str
) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes((clips / "july" / "good.mp4").read_bytes())
    (clips / "july" / name).write_text(TRAPS[name].format(port=door.getsockname()[1], secret=secret))
    with pytest.raises(Reject, match="Format not on whitelist"):
        await service().transcode(to_transcode(name))
    with pytest.raises(BlockingIOError):
        door.accept()
    assert left(tmp_path / "out") == []


@pytest.fixture(name="full")
def _full() -> Iterator[int]:
    """The descriptor of a file on a disk that is full."""
    with Path("/dev/full").open("r+b", buffering=0) as full:
        yield full.fileno()


async def test_a_full_disk_is_no_fault_of_the_video(clips: Path, full: int) -> None:
    videos = Ffmpeg(Programs.found("ffmpeg", "ffprobe"), BOUNDS, timedelta(seconds=1))
    with source_in(clips, "july", "good.mp4") as source:
        with pytest.raises(Failed, match="No space left on device"):
            await videos.transcode(source, full, to_transcode("good.mp4").args)
        with pytest.raises(Failed, match="No space left on device"):
            await videos.thumbnail(source, full, to_show("good.mp4").args)


async def test_at_the_deadline_ffmpeg_is_told_to_stop_and_nothing_is_left(
    clips: Path, service: Callable[..., Media], tmp_path: Path
) -> None:
    a_long_clip(clips / "july" / "long.mp4")
    patient = Bounds(100, 100_000, 10_000_000, 1)
    with pytest.raises(JobTimeout, match=r"not done within 8 s \(MEDIA_TIMEOUT\)"):
        await service(patient, 8, slow_ffmpeg(tmp_path)).transcode(to_transcode("long.mp4"))
    assert not alive(int((tmp_path / "pid").read_text()))
    assert left(tmp_path / "out") == []


async def test_a_video_that_goes_on_beyond_what_it_says_is_stopped(
    clips: Path, service: Callable[..., Media], tmp_path: Path
) -> None:
    """A live recording does not say how long it is."""
    if not (clips / "july" / "long.mp4").exists():
        a_long_clip(clips / "july" / "long.mp4")
    ffmpeg("-i", clips / "july" / "long.mp4", "-c", "copy", "-live", "1", "-f", "matroska", clips / "july" / "live.mkv")
    with pytest.raises(Reject, match="it is longer than 10 s"):
        await service().transcode(to_transcode("live.mkv"))
    assert left(tmp_path / "out") == []


async def test_ffmpeg_takes_as_many_threads_as_it_may_to_read_to_scale_and_to_write(
    service: Callable[..., Media], tmp_path: Path
) -> None:
    program = tmp_path / "noting-ffmpeg"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\nexec ffmpeg "$@"\n')
    program.chmod(0o755)
    await service(Bounds(10, 100_000, 10_000_000, 3), program=str(program)).transcode(to_transcode("good.mp4"))
    reading, _, writing = (tmp_path / "words").read_text().partition(" -i ")
    assert ("-threads 3" in reading, "-threads 3" in writing, "-filter_threads 3" in writing) == (True, True, True)


async def test_a_bound_that_the_machine_does_not_have_is_no_fault_of_the_video() -> None:
    ended = await programs.run(["true"], [], 2**64, print)
    assert isinstance(programs.problem(ended), Failed)
    assert str(programs.problem(ended)).startswith("no files of 18446744073709551616 bytes can be")


async def test_a_program_sees_no_password_and_what_it_says_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://media:hunter2@rabbit")
    lines: list[bytes] = []
    flood = "env; echo begin >&2; head -c 1000000 /dev/zero | tr '\\0' x >&2; echo end >&2"
    ended = await programs.run(["sh", "-c", flood], [], 1000, lines.append)
    assert b"LC_ALL=C\n" in lines
    assert b"hunter2" not in b"".join(lines)
    assert ended.code == 0
    assert ended.words.startswith("begin")
    assert ended.words.endswith("end\n")
    assert len(ended.words) < 20_000
