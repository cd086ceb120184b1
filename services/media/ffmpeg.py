"""Videos by ffmpeg, which sees of the world no more than one file to read and one to write."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Self

from penstock import ConfigError
from penstock_jobs.media import Quality, VideoThumbnail, VideoTranscode
from services.media import programs
from services.media.images import size_of
from services.media.ports import Made, Refused
from services.media.probing import ASKED, Video, read_video
from services.media.programs import path_of
from services.media.progress import Progress

#: What ffmpeg reads. Not among them are playlists and the like, which name other files and hosts to read from.
FORMATS = "asf,avi,flv,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,ogg"

#: What has to be built into it.
_ENCODERS = ("aac", "libx264", "mjpeg")

#: How much x264 may lose, by its own scale.
_CRF: dict[Quality, int] = {"small": 28, "good": 23, "best": 19}

_H264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4")
_JPEG = ("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p", "-f", "image2", "-update", "1")
#: Neither versions nor times in what is written: a second run writes the same bytes.
_REPEATABLE = ("-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact")

#: What ffmpeg says of a file that ends too soon, without making that an error, and where there is no frame.
_CUT_OFF, _NOTHING = "File ended prematurely", "Empty output"

#: Seconds before the end in which the last frame is looked for.
_TAIL = 10.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a video may be and take: *max_seconds* long, *max_pixels* a frame, *max_bytes* of a file that is written,
    *threads* for each of reading, scaling and writing it."""

    max_seconds: float
    max_pixels: int
    max_bytes: int
    threads: int


@dataclass(frozen=True, slots=True)
class Programs:
    """Where ffmpeg and ffprobe are."""

    ffmpeg: str
    ffprobe: str

    @classmethod
    def found(cls, ffmpeg: str, ffprobe: str) -> Self:
        """Look for both, and whether ffmpeg can write what is asked of it. Raises ``ConfigError``."""
        both = cls(programs.found(ffmpeg, "MEDIA_FFMPEG", "ffmpeg"), programs.found(ffprobe, "MEDIA_FFPROBE", "ffmpeg"))
        both._check()
        return both

    def _check(self) -> None:
        try:
            said = subprocess.run(
                [self.ffmpeg, "-hide_banner", "-encoders"], capture_output=True, timeout=20, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ConfigError(f"{self.ffmpeg} does not run: {error}") from error
        known = set(said.stdout.decode(errors="replace").split())
        missing = [encoder for encoder in _ENCODERS if encoder not in known]
        if missing:
            raise ConfigError(
                f"{self.ffmpeg} was built without {', '.join(missing)}: install another, such as Debian's"
            )


class _Nothing(Refused):
    """There is no frame where one was looked for."""


class Ffmpeg:
    """See ``Videos``. *period*: how often it says how far it is."""

    def __init__(self, where: Programs, bounds: Bounds, period: timedelta) -> None:
        self._where = where
        self._bounds = bounds
        self._period = period

    async def transcode(self, source: int, target: int, wanted: VideoTranscode) -> Made:
        """See ``Videos.transcode``."""
        video = await self._probe(source)
        progress = Progress(video.seconds, self._bounds.max_seconds, self._period)
        audio = ("-map", "0:a:0?", "-c:a", "aac", "-b:a", "128k", "-ac", "2") if wanted.audio else ()
        scaled = f"scale=-2:'max(2,trunc(min(ih,{wanted.height})/2)*2)'"  # H.264 takes even sizes only
        await self._ffmpeg(
            source,
            target,
            [*audio, "-vf", scaled, *_H264, "-crf", str(_CRF[wanted.quality]), "-threads", str(self._bounds.threads)],
            hear=progress.hear,
        )
        made = await self._probe(target)
        return Made(made.width, made.height, made.seconds)

    async def thumbnail(self, source: int, target: int, wanted: VideoThumbnail) -> Made:
        """See ``Videos.thumbnail``."""
        video = await self._probe(source)
        at = (video.seconds or 0) / 10 if wanted.at is None else wanted.at
        if video.seconds is not None and at > video.seconds:
            raise Refused(f"there is nothing at {at:g} s: it is {video.seconds:g} s long")
        how = ["-vf", f"scale='min(iw,{wanted.width})':-1", *_JPEG]
        try:
            await self._ffmpeg(source, target, [*how, "-frames:v", "1"], start=at)
        except _Nothing:  # no further frame begins there: each writes over the one before, and the last one stays
            await self._ffmpeg(source, target, how, start=max(at - _TAIL, 0.0))
        return Made(*size_of(target))

    async def _probe(self, source: int) -> Video:
        said: list[bytes] = []
        command = [self._where.ffprobe, *self._reading(source), "-show_entries", ASKED, "-of", "json=compact=1"]
        ended = await programs.run(command, [source], self._bounds.max_bytes, said.append)
        if ended.code:
            raise programs.problem(ended)
        return read_video(b"".join(said), max_seconds=self._bounds.max_seconds, max_pixels=self._bounds.max_pixels)

    async def _ffmpeg(
        self,
        source: int,
        target: int,
        how: Sequence[str],
        *,
        start: float = 0.0,
        hear: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        threads = str(self._bounds.threads)
        command = (
            *(self._where.ffmpeg, "-hide_banner", "-nostdin", "-xerror", "-abort_on", "empty_output"),
            *("-progress", "pipe:1", "-stats_period", f"{self._period.total_seconds():g}"),
            *("-threads", threads, *(("-ss", f"{start:.6f}") if start else ()), *self._reading(source)),
            *("-map", "0:V:0", "-map_metadata", "-1", "-map_chapters", "-1", "-filter_threads", threads),
            *(*how, *_REPEATABLE, "-y", path_of(target)),
        )
        ended = await programs.run(command, [source, target], self._bounds.max_bytes, hear)
        if ended.code and _NOTHING in ended.words:
            raise _Nothing("it has no frame that can be read")
        if ended.code or _CUT_OFF in ended.words:
            raise programs.problem(ended)

    def _reading(self, source: int) -> Sequence[str]:
        """The options by which either program reads *source*, and nothing else."""
        whitelists = ("-protocol_whitelist", "file", "-format_whitelist", FORMATS)
        return ("-v", "error", *whitelists, "-max_pixels", str(self._bounds.max_pixels), "-i", path_of(source))
