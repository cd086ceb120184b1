"""The media service put together: ``penstock worker services.media.app:build``."""

from __future__ import annotations

from functools import partial

from penstock import Handlers, Worker
from penstock_jobs.media import IMAGE_RESIZE, VIDEO_THUMBNAIL, VIDEO_TRANSCODE
from services.media.ffmpeg import Bounds, Ffmpeg, Programs
from services.media.handlers import Media
from services.media.images import Pillow
from services.media.settings import MIB, Settings


def build() -> Worker:
    """The media service that ``MEDIA_*`` describes. Raises ``ConfigError``, also when ffmpeg is not there."""
    settings = Settings.read()
    media = _media(settings)
    handlers = Handlers()
    # In a process of its own, whatever it starts can be stopped and has no more memory than it may.
    register = partial(
        handlers.on,
        retry=settings.retry_policy(),
        timeout=settings.timeout + settings.stop_grace,
        isolation="process",
        memory=settings.memory * MIB,
    )
    register(VIDEO_TRANSCODE)(media.transcode)
    register(VIDEO_THUMBNAIL)(media.thumbnail)
    register(IMAGE_RESIZE)(media.resize)
    return Worker(
        handlers,
        queue="media",
        slots=settings.slots,
        unknown_kind_grace=settings.unknown_kind_grace,
        consumer_timeout=settings.consumer_timeout,
    )


def _media(settings: Settings) -> Media:
    programs = Programs.found(settings.ffmpeg, settings.ffprobe)
    bounds = Bounds(
        settings.max_duration.total_seconds(), settings.max_video_pixels, settings.max_bytes * MIB, settings.threads
    )
    videos, images = Ffmpeg(programs, bounds, settings.progress), Pillow(settings.max_image_pixels)
    return Media(settings.source_dir, settings.output_dir, videos, images, settings.timeout)
