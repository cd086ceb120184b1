"""Files for the media service: a picture and a video that are fine, and one that only looks like a video."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any  # jobs of three kinds

from PIL import Image

from penstock import NewJob
from penstock.clock import new_job_id
from penstock_jobs.media import (
    IMAGE_RESIZE,
    VIDEO_THUMBNAIL,
    VIDEO_TRANSCODE,
    ImageResize,
    VideoThumbnail,
    VideoTranscode,
)

_FOLDER = "demo"
_PICTURE, _VIDEO, _NO_VIDEO = "picture.png", "video.mp4", "letter.mp4"
_MAKING = ("-f", "lavfi", "-i", "testsrc=size=320x240:rate=10:duration=2", "-pix_fmt", "yuv420p")
_ID = 36  # the length of a job id, with which the name of what was made ends


def can_be_made() -> bool:
    """Whether there is an ffmpeg, without which no media service runs."""
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


def make(sources: Path) -> None:
    """Put the files below *sources*. Raises ``OSError``, ``subprocess.SubprocessError``."""
    folder = sources / _FOLDER
    folder.mkdir(parents=True)
    Image.linear_gradient("L").resize((1600, 1200)).save(folder / _PICTURE)
    command = ["ffmpeg", "-v", "error", *_MAKING, str(folder / _VIDEO)]
    subprocess.run(command, stdin=subprocess.DEVNULL, timeout=30, check=True)
    (folder / _NO_VIDEO).write_text("Dear Ada,\nthis is no video.\n")


def jobs(run: str) -> list[NewJob[Any]]:
    """What is to be made of them; the last one cannot be."""
    return [
        _job(IMAGE_RESIZE, ImageResize(folder=_FOLDER, source=_PICTURE, width=400, height=400), run),
        _job(VIDEO_THUMBNAIL, VideoThumbnail(folder=_FOLDER, source=_VIDEO), run),
        _job(VIDEO_TRANSCODE, VideoTranscode(folder=_FOLDER, source=_VIDEO, height=120), run),
        _job(VIDEO_TRANSCODE, VideoTranscode(folder=_FOLDER, source=_NO_VIDEO), run),
    ]


def made(outputs: Path) -> list[str]:
    """The job ids of what was made."""
    return [path.stem[-_ID:] for path in sorted((outputs / _FOLDER).glob("[!.]*"))]


def _job(kind: Any, args: Any, run: str) -> NewJob[Any]:
    job: NewJob[Any] = kind.new(args, id=new_job_id(), correlation_id=run)
    return job
