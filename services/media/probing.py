"""What ffprobe says of a video, and whether that is within bounds."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any  # what ffprobe prints is JSON

import orjson

from services.media.ports import Failed, Refused

#: What ffprobe is asked for.
ASKED = "format=duration:stream=codec_type,width,height,duration:stream_disposition=attached_pic"


@dataclass(frozen=True, slots=True)
class Video:
    """A video as its file describes it; *seconds*: None when it does not say, as what a browser has recorded."""

    width: int
    height: int
    seconds: float | None


def read_video(said: bytes, *, max_seconds: float, max_pixels: int) -> Video:
    """The video that ffprobe described in *said*. Raises ``Refused`` when there is none, or none that is taken,
    and ``Failed`` when that was not ffprobe."""
    found = _read(said)
    stream = next((one for one in found.get("streams", []) if _is_video(one)), None)
    if stream is None:
        raise Refused("no video stream")
    seconds = _seconds(stream) or _seconds(found.get("format", {}))
    if seconds is not None and seconds > max_seconds:
        raise Refused(f"it is {seconds:g} s long, and at most {max_seconds:g} s (MEDIA_MAX_DURATION) are taken")
    video = Video(int(stream.get("width", 0)), int(stream.get("height", 0)), seconds)
    if video.width * video.height > max_pixels:
        size = f"{video.width}x{video.height}"
        raise Refused(f"it is {size}, and frames of at most {max_pixels} pixels (MEDIA_MAX_VIDEO_PIXELS) are taken")
    return video


def _read(said: bytes) -> dict[str, Any]:
    with suppress(orjson.JSONDecodeError):
        if isinstance(found := orjson.loads(said), dict):
            return found
    raise Failed("what was asked about the video does not answer as ffprobe does: MEDIA_FFPROBE")


def _is_video(stream: dict[str, Any]) -> bool:
    """Whether it is one: the cover of a piece of music is not."""
    return stream.get("codec_type") == "video" and not stream.get("disposition", {}).get("attached_pic")


def _seconds(of: dict[str, Any]) -> float | None:
    try:
        return float(of["duration"]) or None
    except (KeyError, ValueError):
        return None
