"""Small videos and images to make others of, what is only named like one, and another's look at what became of them."""

from __future__ import annotations

import json
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any  # what ffprobe prints is JSON

#: Seconds that the clips last.
SECONDS = 0.8

_PATTERN = ("-f", "lavfi", "-i", f"testsrc=size=64x48:rate=10:duration={SECONDS}")
_TONE = ("-f", "lavfi", "-i", f"sine=frequency=440:duration={SECONDS}")
_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def ffmpeg(*words: str | Path) -> None:
    """Run ffmpeg as people do."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, words)], stdin=subprocess.DEVNULL, timeout=30, check=True)


def probed(path: Path) -> dict[str, Any]:
    """What ffprobe says of *path*: its format and its streams by their type."""
    command = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", str(path)]
    said = json.loads(subprocess.run(command, capture_output=True, timeout=30, check=True).stdout)
    return {"format": said["format"], **{stream["codec_type"]: stream for stream in said["streams"]}}


def make_clips(folder: Path) -> None:
    """Put one of each kind into *folder*: fine ones, broken ones, and traps."""
    folder.mkdir(parents=True)
    good, plain = folder / "good.mp4", folder / "plain.mp4"
    tags = ("-metadata", "title=secret place", "-metadata", "location=+52.5+013.4/")
    ffmpeg(*_PATTERN, *_TONE, *_H264, "-c:a", "aac", *tags, "-movflags", "+faststart", good)
    ffmpeg("-i", good, "-c", "copy", plain)
    ffmpeg("-i", good, "-c", "copy", folder / "good.mkv")
    ffmpeg("-i", good, "-vn", "-c", "copy", folder / "audio.mp4")
    halves = "color=red:s=64x48:r=10:d=0.5[a];color=blue:s=64x48:r=10:d=0.5[b];[a][b]concat"
    ffmpeg("-f", "lavfi", "-i", halves, *_H264, folder / "halves.mp4")
    _cut(good, folder / "cut.mp4")
    _cut(plain, folder / "cut-index.mp4")
    _cut(folder / "good.mkv", folder / "cut.mkv")
    (folder / "text.mp4").write_text("This is no video.\n")
    (folder / "empty.mp4").touch()


def a_large_clip(path: Path) -> None:
    """One frame in 4K."""
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=3840x2160:rate=1:duration=1", *_H264, path)


def a_long_clip(path: Path) -> None:
    """A minute of little to look at."""
    ffmpeg("-f", "lavfi", "-i", "color=gray:size=64x48:rate=5:duration=60", *_H264, path)


def slow_ffmpeg(folder: Path, *, deaf: bool = False) -> str:
    """The path of an ffmpeg that is no faster than people look, and writes its process id to ``pid`` in *folder*.

    A *deaf* one is not stopped by being told to, and has started another process.
    """
    path, slow = folder / "slow-ffmpeg", 'ffmpeg -re "$@"'
    lines = [
        "#!/bin/sh",
        '[ "$2" = -encoders ] && exec ffmpeg "$@"',
        f"trap '' TERM; {slow} & echo $! > {folder}/pid; wait; wait"
        if deaf
        else f"echo $$ > {folder}/pid; exec {slow}",
    ]
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return str(path)


def a_bomb(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that says it is so large."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )


def _cut(path: Path, to: Path) -> None:
    data = path.read_bytes()
    to.write_bytes(data[: len(data) * 6 // 10])
