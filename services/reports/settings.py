"""The reports service's settings, from ``REPORTS_*`` in the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from penstock.service_settings import Attempts, Factor, Pause, RetrySettings

DEFINITIONS = Path(__file__).with_name("reports.yaml")


class Settings(RetrySettings):
    """What can be told to the reports service. Durations are seconds, or such as ``5m``; sizes are MiB."""

    model_config = SettingsConfigDict(env_prefix="REPORTS_")

    #: Where producers leave orders, and where reports appear; never made up from a job alone.
    source_dir: Path = Path("var/reports/source")
    output_dir: Path = Path("var/reports/output")
    slots: Annotated[int, Field(ge=1, le=100)] = 2
    #: The reports on databases, and where those are: ``NAME=URL``, apart by white space.
    definitions: Path = DEFINITIONS
    databases: SecretStr | None = None
    #: How long a database may take for one answer, and how many rows a report may have.
    statement_timeout: Annotated[Pause, Field(ge=timedelta(milliseconds=1))] = timedelta(minutes=5)
    max_rows: Annotated[int, Field(ge=1)] = 5_000_000
    #: A TrueType font for PDFs, beside its bold one if there is one.
    font: Path | None = None
    #: A report that takes longer, or its process more memory, is stopped and counts as a failed attempt.
    timeout: Pause = timedelta(minutes=10)
    memory: Annotated[int, Field(ge=128)] = 1024
    #: A report is tried this often, after ``retry_first``, then ``retry_factor`` times as long, up to the cap: with the
    #: defaults, a database may be away for an hour.
    attempts: Attempts = 6
    retry_first: Pause = timedelta(seconds=1)
    retry_factor: Factor = 10.0
    retry_cap: Pause = timedelta(hours=1)
    unknown_kind_grace: Pause = timedelta(minutes=5)
