"""The janitor's settings, from ``JANITOR_*`` in the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.settings import Span, read_settings

RULES = Path(__file__).with_name("rules.yaml")


class Settings(BaseSettings):
    """What can be told to a janitor. Durations are seconds, or such as ``5m``."""

    model_config = SettingsConfigDict(env_prefix="JANITOR_", frozen=True)

    #: What expires; see ``rules.yaml``.
    rules: Path = RULES
    #: How long one run may go on; what is left then is the next one's.
    budget: Annotated[Span, Field(gt=timedelta(0), le=timedelta(minutes=10))] = timedelta(minutes=5)

    @classmethod
    def read(cls) -> Self:
        """The settings of this process's environment. Raises ``ConfigError`` with every problem."""
        return read_settings(cls)
