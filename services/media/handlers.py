"""The jobs of the media service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path, PurePath

from penstock import Job, JobTimeout, Reject, Snooze
from penstock.service_files import Busy, Outside, source_in, whole_file, word_of
from penstock_jobs.media import ImageFormat, ImageResize, VideoThumbnail, VideoTranscode
from services.media.ports import Images, Made, Refused, Videos

#: How long a job is put off while another run of it writes the same file.
_TWIN = timedelta(seconds=30)

_ENDINGS: dict[ImageFormat, str] = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}

Answer = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class _Files:
    """The descriptors of a job's source and target, and the target's name."""

    source: int
    target: int
    name: str

    def answer(self, made: Made) -> Answer:
        """What is said of what was *made*."""
        about = {name: value for name, value in asdict(made).items() if value is not None}
        return {"file": self.name, "bytes": os.fstat(self.target).st_size, **about}


class Media:
    """Makes files below *outputs* of files below *sources* with *videos* and *images*. Holds no state.

    Names hold the job id: a second run writes the same to the same place. A source that is not there (yet), a disk that
    takes nothing and a tool that failed are tried again; what nothing can be made of rejects the job. *deadline*: for
    one video.
    """

    def __init__(self, sources: Path, outputs: Path, videos: Videos, images: Images, deadline: timedelta) -> None:
        self._sources = sources
        self._outputs = outputs
        self._videos = videos
        self._images = images
        self._deadline = deadline

    async def transcode(self, job: Job[VideoTranscode]) -> Answer:
        """Write the video anew, and say what it became."""
        with self._files(job, ".mp4") as files:
            async with _within(self._deadline):
                return files.answer(await self._videos.transcode(files.source, files.target, job.args))

    async def thumbnail(self, job: Job[VideoThumbnail]) -> Answer:
        """Write one frame of the video, and say what it became."""
        with self._files(job, ".jpg") as files:
            async with _within(self._deadline):
                return files.answer(await self._videos.thumbnail(files.source, files.target, job.args))

    def resize(self, job: Job[ImageResize]) -> Answer:
        """Write the image anew, and say what it became."""
        with self._files(job, _ENDINGS[job.args.format]) as files:
            return files.answer(self._images.resize(files.source, files.target, job.args))

    @contextmanager
    def _files(
        self, job: Job[VideoTranscode] | Job[VideoThumbnail] | Job[ImageResize], ending: str
    ) -> Iterator[_Files]:
        folder, source = job.args.folder, job.args.source
        name = f"{PurePath(source).stem}-{word_of(job.id)}{ending}"
        try:
            with (
                source_in(self._sources, folder, source) as read,
                whole_file(self._outputs, folder, name) as written,
            ):
                yield _Files(read, written, name)
        except (Refused, Outside) as error:
            raise Reject(f"{folder}/{source}: {error}") from error
        except Busy as error:
            raise Snooze(str(error), after=_TWIN) from error


@asynccontextmanager
async def _within(deadline: timedelta) -> AsyncIterator[None]:
    timer = asyncio.timeout(deadline.total_seconds())
    try:
        async with timer:
            yield
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise JobTimeout(f"not done within {deadline.total_seconds():g} s (MEDIA_TIMEOUT)") from error
