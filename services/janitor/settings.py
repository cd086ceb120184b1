"""The janitor's settings, from ``JANITOR_*`` in the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from penstock.service_settings import ServiceSettings
from penstock.settings import Span

RULES = Path(__file__).with_name("rules.yaml")


class Settings(ServiceSettings):
    """What can be told to a janitor. Durations are seconds, or such as ``5m``."""

    model_config = SettingsConfigDict(env_prefix="JANITOR_")

    #: What expires; see ``rules.yaml``.
    rules: Path = RULES
    #: How long one run may go on; what is left then is the next one's.
    budget: Annotated[Span, Field(gt=timedelta(0), le=timedelta(minutes=10))] = timedelta(minutes=5)
