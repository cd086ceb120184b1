"""What the settings of services have in common: read from the environment, and when a failed job is tried again."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.retry import RetryPolicy
from penstock.settings import Span, read_settings

Attempts = Annotated[int, Field(ge=1)]
Factor = Annotated[float, Field(ge=1)]
Pause = Annotated[Span, Field(ge=timedelta(0), le=timedelta(days=1))]


class ServiceSettings(BaseSettings):
    """Settings of one service, by the ``env_prefix`` of its own. Immutable."""

    model_config = SettingsConfigDict(frozen=True)

    @classmethod
    def read(cls) -> Self:
        """The settings of this process's environment. Raises ``ConfigError`` with every problem, never with a value."""
        return read_settings(cls)


class RetrySettings(ServiceSettings):
    """Those of a service that tries failed jobs again; each service has defaults of its own.

    A job is tried *attempts* times: again after ``retry_first``, then ``retry_factor`` times as long, up to the cap.
    """

    attempts: Attempts
    retry_first: Pause
    retry_factor: Factor
    retry_cap: Pause

    def retry_policy(self) -> RetryPolicy:
        """When a job that failed is tried again."""
        return RetryPolicy(
            max_attempts=self.attempts, first=self.retry_first, factor=self.retry_factor, cap=self.retry_cap
        )
