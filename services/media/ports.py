"""What the media service's job code asks of the outside: tools that make one file of another, or say why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from penstock_jobs.media import ImageResize, VideoThumbnail, VideoTranscode


class Refused(Exception):
    """Nothing can be made of this source as it is; the text is the tool's own reason, in one line."""


class Failed(Exception):
    """The tool did not get done this time: no space, no memory, killed. Trying again may help."""


@dataclass(frozen=True, slots=True)
class Made:
    """What was made: its size in pixels, and how many seconds it lasts if it is a video."""

    width: int
    height: int
    seconds: float | None = None


class Videos(Protocol):
    """Makes files of videos. *source* and *target* are descriptors of regular files. Safe to share by tasks.

    Raises ``Refused`` and ``Failed``. When it is cancelled, nothing of it runs on.
    """

    async def transcode(self, source: int, target: int, wanted: VideoTranscode) -> Made:
        """Write *source* to *target* as *wanted*, and log now and then how far it is."""
        ...

    async def thumbnail(self, source: int, target: int, wanted: VideoThumbnail) -> Made:
        """Write the frame of *source* that is *wanted* to *target*."""
        ...


class Images(Protocol):
    """Makes images of images, likewise; it blocks."""

    def resize(self, source: int, target: int, wanted: ImageResize) -> Made:
        """Write *source* to *target* as *wanted*. Raises ``Refused``, and ``OSError`` when it cannot be written."""
        ...
