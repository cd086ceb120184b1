"""The reports service's settings, from ``REPORTS_*`` in the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock import RetryPolicy
from penstock.settings import Span, read_settings

DEFINITIONS = Path(__file__).with_name("reports.yaml")

_Span = Annotated[Span, Field(ge=timedelta(0), le=timedelta(days=1))]


class Settings(BaseSettings):
    """What can be told to the reports service. Durations are seconds, or such as ``5m``; sizes are MiB."""

    model_config = SettingsConfigDict(env_prefix="REPORTS_", frozen=True)

    #: Where producers leave orders, and where reports appear; never made up from a job alone.
    source_dir: Path = Path("var/reports/source")
    output_dir: Path = Path("var/reports/output")
    slots: Annotated[int, Field(ge=1, le=100)] = 2
    #: The reports on databases, and where those are: ``NAME=URL``, apart by white space.
    definitions: Path = DEFINITIONS
    databases: SecretStr | None = None
    #: How long a database may take for one answer, and how many rows a report may have.
    statement_timeout: Annotated[_Span, Field(ge=timedelta(milliseconds=1))] = timedelta(minutes=5)
    max_rows: Annotated[int, Field(ge=1)] = 5_000_000
    #: A TrueType font for PDFs, beside its bold one if there is one.
    font: Path | None = None
    #: A report that takes longer, or its process more memory, is stopped and counts as a failed attempt.
    timeout: _Span = timedelta(minutes=10)
    memory: Annotated[int, Field(ge=128)] = 1024
    #: A report is tried this often, after ``retry_first``, then ``retry_factor`` times as long, up to the cap: with the
    #: defaults, a database may be away for an hour.
    attempts: Annotated[int, Field(ge=1)] = 6
    retry_first: _Span = timedelta(seconds=1)
    retry_factor: Annotated[float, Field(ge=1)] = 10.0
    retry_cap: _Span = timedelta(hours=1)
    unknown_kind_grace: _Span = timedelta(minutes=5)

    @classmethod
    def read(cls) -> Self:
        """The settings of this process's environment. Raises ``ConfigError`` with every problem."""
        return read_settings(cls)

    def retry_policy(self) -> RetryPolicy:
        """When a report that could not be made is tried again."""
        return RetryPolicy(
            max_attempts=self.attempts, first=self.retry_first, factor=self.retry_factor, cap=self.retry_cap
        )
