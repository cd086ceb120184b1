"""The reports service's settings, from ``REPORTS_*`` in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock import ConfigError

_Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """What can be told to the reports service. Durations are in seconds, sizes in MiB."""

    model_config = SettingsConfigDict(env_prefix="REPORTS_", frozen=True)

    #: Where producers leave orders, and where reports appear; never made up from a job alone.
    source_dir: Path = Path("var/reports/source")
    output_dir: Path = Path("var/reports/output")
    slots: Annotated[int, Field(ge=1, le=100)] = 2
    #: A report that takes longer, or its process more memory, is stopped and counts as a failed attempt.
    timeout: _Seconds = 120.0
    memory: Annotated[int, Field(ge=128)] = 1024
    attempts: Annotated[int, Field(ge=1)] = 4
    retry_first: _Seconds = 1.0
    retry_factor: Annotated[float, Field(ge=1)] = 10.0
    retry_cap: _Seconds = 3600.0
    unknown_kind_grace: Annotated[float, Field(ge=0)] = 300.0

    @classmethod
    def read(cls) -> Self:
        """The settings of this process's environment. Raises ``ConfigError`` with every problem."""
        try:
            return cls()
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            raise ConfigError(*(f"REPORTS_{str(p['loc'][0]).upper()}: {p['msg']}" for p in problems)) from None
