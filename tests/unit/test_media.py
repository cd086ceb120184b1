"""The media service's parts: settings, what a program's end means, how far it is, what ffprobe says of a video."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any  # arguments as JSON

import pytest
from PIL import Image

from penstock import ConfigError, Job, JobKind, Reject, SchemaError, Snooze
from penstock.service_files import whole_file
from penstock_jobs.media import IMAGE_RESIZE, VIDEO_THUMBNAIL, VIDEO_TRANSCODE, ImageResize
from services.media.app import build
from services.media.ports import Failed, Refused
from services.media.probing import Video, read_video
from services.media.programs import Ended, problem, reason
from services.media.progress import Progress

HLS = """\
[hls @ 0x563dfae3f400] Format not on whitelist 'mov,mp4'
file:/proc/self/fd/12: Invalid argument
"""
#: As ffmpeg 5.1 says it.
PROGRESS = """\
frame=1
fps=0.00
out_time_us={microseconds}
out_time_ms={microseconds}
speed=1.5x
progress=continue
"""


@pytest.mark.parametrize("kind", [VIDEO_TRANSCODE, VIDEO_THUMBNAIL, IMAGE_RESIZE])
@pytest.mark.parametrize("field", ["folder", "source"])
@pytest.mark.parametrize("value", ["..", "../x", "/etc", ".hidden", "a/b", "a\\b", "", "a\x00", "x" * 101, "a\n", "-i"])
def test_a_name_that_could_climb_breaks_the_schema(kind: JobKind[Any], field: str, value: str) -> None:
    args = {"folder": "july", "source": "clip.mp4", "width": 40, "height": 40} | {field: value}
    with pytest.raises(SchemaError, match=f"{field}: "):
        kind.decode(json.dumps(args).encode())


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        (VIDEO_TRANSCODE, {"height": 721}),
        (VIDEO_TRANSCODE, {"height": 100_000}),
        (VIDEO_TRANSCODE, {"quality": "-i /etc/passwd"}),
        (VIDEO_THUMBNAIL, {"at": -1}),
        (VIDEO_THUMBNAIL, {"width": 0}),
        (IMAGE_RESIZE, {"width": 100_000, "height": 1}),
        (IMAGE_RESIZE, {"width": 1, "height": 1, "format": "eps"}),
    ],
)
def test_what_cannot_be_wanted_breaks_the_schema(kind: JobKind[Any], args: dict[str, Any]) -> None:
    with pytest.raises(SchemaError):
        kind.decode(json.dumps({"folder": "july", "source": "clip.mp4"} | args).encode())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (HLS, "hls: Format not on whitelist 'mov,mp4'; Invalid argument"),
        ("file:/proc/self/fd/5: Invalid data found\n" * 3, "Invalid data found"),
        ("[h264 @ 0x1] [IMGUTILS @ 0x7f] Picture too large\n", "h264: IMGUTILS: Picture too large"),
        ("one\ntwo\nthree\nfour\n    Last message repeated 7 times\n", "one; two; four"),
        ("one\n\x1b[31mtwo\x00\u202e\r\n", "one; [31mtwo"),
        ("w" * 5000, "w" * 300),
        ("", ""),
    ],
)
def test_a_reason_is_the_programs_own_in_one_line_that_is_the_same_each_time(words: str, told: str) -> None:
    assert reason(words) == told


@pytest.mark.parametrize(
    ("code", "words", "kind", "told"),
    [
        (1, "Invalid data found\n", Refused, "Invalid data found"),
        (1, "", Refused, "exit code 1, without a word"),
        (1, "av_interleaved_write_frame(): No space left on device\n", Failed, "No space left on device"),
        (1, "file:/proc/self/fd/4: Read-only file system\n", Failed, "Read-only file system"),
        (1, "x264 [error]: malloc of size 44329344 failed\nmaybe incorrect parameters\n", Failed, "malloc of size"),
        (1, "Cannot allocate memory\n", Failed, "Cannot allocate memory"),
        (1, "Unknown encoder 'libx264'\n", Failed, "Unknown encoder"),
        (127, "ffmpeg: error while loading shared libraries: libx.so\n", Failed, "shared libraries"),
        (-9, "", Failed, "killed by SIGKILL"),
        (-11, "", Failed, "killed by SIGSEGV"),
        (-25, "", Refused, "would be larger than MEDIA_MAX_BYTES"),
    ],
)
def test_what_is_the_sources_fault_is_told_from_what_may_pass(
    code: int, words: str, kind: type[Exception], told: str
) -> None:
    found = problem(Ended(code, words))
    assert type(found) is kind
    assert told in str(found)


def described(*streams: dict[str, Any], **about: str) -> bytes:
    return json.dumps({"streams": streams, "format": about}).encode()


def looked_at(said: bytes) -> Video:
    return read_video(said, max_seconds=60, max_pixels=5000)


A_VIDEO = {"codec_type": "video", "width": 64, "height": 48}
A_COVER = {"codec_type": "video", "width": 9999, "height": 9999, "disposition": {"attached_pic": 1}}
SOUND = {"codec_type": "audio", "duration": "7.0"}


@pytest.mark.parametrize(
    ("said", "video"),
    [
        (described(A_VIDEO | {"duration": "2.5"}, SOUND, duration="7.0"), Video(64, 48, 2.5)),
        (described(SOUND, A_COVER, A_VIDEO, duration="7.0"), Video(64, 48, 7.0)),
        (described(A_VIDEO | {"duration": "N/A"}), Video(64, 48, None)),
        (described(A_VIDEO, duration="0.000000"), Video(64, 48, None)),
    ],
)
def test_a_video_is_read_from_what_ffprobe_says(said: bytes, video: Video) -> None:
    assert looked_at(said) == video


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"{}", "no video stream"),
        (described(SOUND, A_COVER), "no video stream"),
        (described(A_VIDEO, duration="60.5"), r"60.5 s long, and at most 60 s \(MEDIA_MAX_DURATION\)"),
        (described(A_VIDEO | {"width": 105}, duration="1"), "it is 105x48, and frames of at most 5000 pixels"),
    ],
)
def test_a_video_beyond_bounds_is_refused(said: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        looked_at(said)


@pytest.mark.parametrize("said", [b"", b"usage: probe FILE", b"[]"])
def test_a_program_that_is_not_ffprobe_is_no_fault_of_the_video(said: bytes) -> None:
    with pytest.raises(Failed, match=r"MEDIA_FFPROBE"):
        looked_at(said)


def test_how_far_it_is_is_logged_each_period_and_no_oftener(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "services.media")
    clock = [0.0]
    progress = Progress(60.0, 100.0, timedelta(seconds=10), lambda: clock[0])
    for second in range(26):
        clock[0] = float(second)
        for line in PROGRESS.format(microseconds=second * 2_000_000).splitlines():
            progress.hear(line.encode() + b"\n")
    assert caplog.messages == [
        "33%: 20.0 s of 60.0 s, 1.5x as fast as it plays",
        "67%: 40.0 s of 60.0 s, 1.5x as fast as it plays",
    ]


def test_a_video_that_does_not_say_how_long_it_is_may_still_be_too_long(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "services.media")
    progress = Progress(None, 100.0, timedelta(), lambda: 0.0)
    for line in (*PROGRESS.format(microseconds=99_000_000).encode().splitlines(), b"out_time_us=N/A", b"nonsense"):
        progress.hear(line)
    assert caplog.messages == ["99.0 s, 1.5x as fast as it plays"]
    with pytest.raises(Refused, match="longer than 100 s"):
        progress.hear(b"out_time_us=100000001\n")


@pytest.fixture(name="resize")
def _resize(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The handler of a service that reads below ``in`` and writes below ``out``."""
    (tmp_path / "in" / "july").mkdir(parents=True)
    Image.new("RGB", (100, 60)).save(tmp_path / "in" / "july" / "beach.png")
    monkeypatch.setenv("MEDIA_SOURCE_DIR", str(tmp_path / "in"))
    monkeypatch.setenv("MEDIA_OUTPUT_DIR", str(tmp_path / "out"))
    function: Callable[..., Any] = build().handlers.for_kind("image.resize").function
    return function


def a_job(job_id: str = "id-1", source: str = "beach.png", folder: str = "july") -> Job[ImageResize]:
    return Job(job_id, "image.resize", ImageResize(folder=folder, source=source, width=50, height=50))


def made_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_made_is_named_after_source_and_job_and_the_same_each_time(
    resize: Callable[..., Any], tmp_path: Path
) -> None:
    answer = resize(a_job())
    before = made_in(tmp_path / "out" / "july")
    assert answer == {"file": "beach-id-1.jpg", "bytes": len(before["beach-id-1.jpg"]), "width": 50, "height": 30}
    assert resize(a_job()) == answer
    assert made_in(tmp_path / "out" / "july") == before


def test_an_id_with_slashes_stays_one_file_name(resize: Callable[..., Any], tmp_path: Path) -> None:
    resize(a_job("../../../tmp/evil\n" + "x" * 500))
    assert {path.parent for path in tmp_path.rglob("*evil*")} == {tmp_path / "out" / "july"}


def test_long_ids_that_begin_alike_are_different_files(resize: Callable[..., Any], tmp_path: Path) -> None:
    for number in range(2):
        resize(a_job(f"{'/' * 300}{number}"))
    assert len(made_in(tmp_path / "out" / "july")) == 2


def test_a_source_that_can_never_do_rejects_the_job_and_says_which(resize: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "in" / "july" / "text.png").write_text("text")
    (tmp_path / "in" / "july" / "link.png").symlink_to("beach.png")
    for name, words in (("text.png", "no image of a format"), ("link.png", "is a link")):
        with pytest.raises(Reject, match=f"july/{name}: .*{words}"):
            resize(a_job(source=name))
    assert made_in(tmp_path / "out" / "july") == {}


def test_a_source_that_is_not_there_yet_fails_the_attempt(resize: Callable[..., Any]) -> None:
    with pytest.raises(FileNotFoundError):
        resize(a_job(source="later.png"))


def test_a_twin_that_is_at_work_puts_the_job_off(resize: Callable[..., Any], tmp_path: Path) -> None:
    with whole_file(tmp_path / "out", "july", "beach-id-1.jpg"), pytest.raises(Snooze) as caught:
        resize(a_job())
    assert caught.value.after == timedelta(seconds=30)


def test_the_worker_takes_its_limits_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLOTS": "3", "TIMEOUT": "7", "STOP_GRACE": "2", "MEMORY": "600", "ATTEMPTS": "2"}.items():
        monkeypatch.setenv(f"MEDIA_{name}", value)
    monkeypatch.setenv("MEDIA_CONSUMER_TIMEOUT", "2h")
    worker = build()
    assert (worker.queue, worker.slots, worker.consumer_timeout) == ("media", 3, timedelta(hours=2))
    for handler in worker.handlers:
        assert (handler.timeout, handler.memory) == (timedelta(seconds=9), 600 * 1024 * 1024)
        assert (handler.isolation, handler.retry.max_attempts) == ("process", 2)


def test_a_deadline_beyond_the_brokers_patience_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    build().check("services.media.app:build")
    monkeypatch.setenv("MEDIA_TIMEOUT", "25m")
    with pytest.raises(ConfigError, match=r"video.transcode may run 0:25:05, .*consumer timeout of 0:30:00"):
        build().check("services.media.app:build")
    monkeypatch.setenv("MEDIA_CONSUMER_TIMEOUT", "2h")
    build().check("services.media.app:build")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "MEDIA_FFMPEG",
            "ffmpeg-9",
            "ffmpeg-9 is not there: install ffmpeg (on Debian: apt-get install ffmpeg), or name",
        ),
        ("MEDIA_FFPROBE", "/no/ffprobe", "/no/ffprobe is not there: install ffmpeg"),
        ("MEDIA_FFMPEG", "true", "was built without aac, libx264, mjpeg"),
        ("MEDIA_FFMPEG", "false", "false does not run"),
        ("MEDIA_MEMORY", "1", "MEDIA_MEMORY: "),
        ("MEDIA_TIMEOUT", "0", "MEDIA_TIMEOUT: "),
        ("MEDIA_THREADS", "0", "MEDIA_THREADS: "),
    ],
)
def test_a_setting_that_cannot_work_is_told_in_a_line(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        build()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
