"""The media service's settings, from ``MEDIA_*`` in the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from penstock.service_settings import Attempts, Factor, Pause, RetrySettings
from penstock.settings import Span
from penstock.worker import CONSUMER_TIMEOUT

MIB = 1024 * 1024

_Wait = Annotated[Span, Field(ge=timedelta(milliseconds=100), le=timedelta(days=1))]


class Settings(RetrySettings):
    """What can be told to the media service. Durations are seconds, or such as ``5m``; sizes are MiB."""

    model_config = SettingsConfigDict(env_prefix="MEDIA_")

    #: Where producers leave files, and where what is made of them appears; never made up from a job alone.
    source_dir: Path = Path("var/media/source")
    output_dir: Path = Path("var/media/output")
    #: The programs, by their names or paths.
    ffmpeg: str = "ffmpeg"
    ffprobe: str = "ffprobe"
    #: Jobs at once, and for each of them threads that read, scale and write a video.
    slots: Annotated[int, Field(ge=1, le=100)] = 2
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    #: What a job may take: at this deadline ffmpeg is told to stop, and killed when it has not after ``stop_grace``.
    timeout: _Wait = timedelta(minutes=10)
    stop_grace: _Wait = timedelta(seconds=5)
    #: The broker's for this queue: ``consumer_timeout`` in ``topology.yaml``, RabbitMQ 3.12 and newer.
    consumer_timeout: _Wait = CONSUMER_TIMEOUT
    #: What each process of a job may address, and how large a file may be that it writes.
    memory: Annotated[int, Field(ge=512)] = 2048
    max_bytes: Annotated[int, Field(ge=1)] = 4096
    #: What is taken: videos so long, of so large frames, and images so large.
    max_duration: _Wait = timedelta(hours=2)
    max_video_pixels: Annotated[int, Field(ge=1)] = 10_000_000
    max_image_pixels: Annotated[int, Field(ge=1, le=178_956_970)] = 50_000_000
    #: How often the log says how far a video is.
    progress: _Wait = timedelta(seconds=10)
    attempts: Attempts = 4
    retry_first: Pause = timedelta(seconds=5)
    retry_factor: Factor = 6.0
    retry_cap: Pause = timedelta(hours=1)
    unknown_kind_grace: Pause = timedelta(minutes=5)
