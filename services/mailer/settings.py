"""The mailer's settings, from ``MAILER_*`` in the environment."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock import ConfigError, RetryPolicy
from penstock_jobs.email import Address

_Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseSettings):
    """What can be told to a mailer. Durations are in seconds."""

    model_config = SettingsConfigDict(env_prefix="MAILER_", frozen=True)

    #: ``smtp://[user:password@]host[:port]`` (STARTTLS when offered; insisted on when there is a password) or ``smtps://``.
    smtp_url: SecretStr = SecretStr("smtp://localhost:25")
    sender: Address = "orders@penstock.example"
    slots: Annotated[int, Field(ge=1, le=1000)] = 16
    #: The deadline of one mail, connecting included.
    timeout: _Seconds = 30.0
    #: A mail is tried this often, after ``retry_first`` seconds, then ``retry_factor`` times as long, up to the cap.
    attempts: Annotated[int, Field(ge=1)] = 8
    retry_first: _Seconds = 5.0
    retry_factor: Annotated[float, Field(ge=1)] = 4.0
    retry_cap: _Seconds = 3600.0
    unknown_kind_grace: Annotated[float, Field(ge=0)] = 300.0

    @classmethod
    def read(cls) -> Self:
        """The settings of this process's environment. Raises ``ConfigError``; values are never shown."""
        try:
            return cls()
        except ValidationError as error:
            problems = error.errors(include_url=False, include_input=False, include_context=False)
            raise ConfigError(*(f"MAILER_{str(p['loc'][0]).upper()}: {p['msg']}" for p in problems)) from None

    def retry_policy(self) -> RetryPolicy:
        """When a mail that could not be sent is tried again."""
        first, cap = timedelta(seconds=self.retry_first), timedelta(seconds=self.retry_cap)
        return RetryPolicy(max_attempts=self.attempts, first=first, factor=self.retry_factor, cap=cap)
