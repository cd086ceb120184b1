"""Videos and images: kinds ``video.transcode``, ``video.thumbnail`` and ``image.resize``.

The files are not in the messages: *source* is in *folder* below the worker's source directory. What is made of it
appears in a folder of the same name below its output directory, as ``<source without its ending>-<job id>.<ending>``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock import JobKind
from penstock_jobs.names import Name

#: How much of the picture is kept, for how large a file.
Quality = Literal["small", "good", "best"]

#: What an image is written as.
ImageFormat = Literal["jpeg", "png", "webp"]


class VideoTranscode(BaseModel):
    """A video as MP4 that browsers play (H.264, AAC in stereo), without its metadata.

    *height*: in pixels; a lower video stays as it is. Without *audio* it is silent.
    """

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {"folder": "holidays", "source": "beach.mov"},
                {"folder": "holidays", "source": "beach.mov", "height": 360, "quality": "small", "audio": False},
            ]
        },
    )

    folder: Name
    source: Name
    height: Annotated[int, Field(ge=16, le=4320, multiple_of=2)] = 720
    quality: Quality = "good"
    audio: bool = True


class VideoThumbnail(BaseModel):
    """One frame of a video as JPEG: the one *at* so many seconds, or a tenth of the way in when nothing is said.

    *width*: in pixels; a narrower video stays as it is.
    """

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {"folder": "holidays", "source": "beach.mov"},
                {"folder": "holidays", "source": "beach.mov", "at": 12.5, "width": 640},
            ]
        },
    )

    folder: Name
    source: Name
    at: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = None
    width: Annotated[int, Field(ge=16, le=4096)] = 320


class ImageResize(BaseModel):
    """An image made to fit into *width* by *height* pixels, upright and without its metadata; none is enlarged.

    Of one that moves, its first picture.
    """

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra={
            "examples": [
                {"folder": "holidays", "source": "beach.jpg", "width": 1600, "height": 1600},
                {"folder": "logos", "source": "ours.png", "width": 200, "height": 80, "format": "png"},
            ]
        },
    )

    folder: Name
    source: Name
    width: Annotated[int, Field(ge=1, le=8192)]
    height: Annotated[int, Field(ge=1, le=8192)]
    format: ImageFormat = "jpeg"


VIDEO_TRANSCODE = JobKind("video.transcode", VideoTranscode)
VIDEO_THUMBNAIL = JobKind("video.thumbnail", VideoThumbnail)
IMAGE_RESIZE = JobKind("image.resize", ImageResize)
