"""The mailer's settings, from ``MAILER_*`` in the environment."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock import RetryPolicy
from penstock.durations import duration
from penstock.settings import read_settings
from penstock_jobs.email import Address


def _span(value: object) -> object:
    return duration(value) if isinstance(value, str) else value


_Span = Annotated[timedelta, BeforeValidator(_span), Field(ge=timedelta(0), le=timedelta(days=1))]


class Settings(BaseSettings):
    """What can be told to a mailer. Durations are seconds, or such as ``5m``."""

    model_config = SettingsConfigDict(env_prefix="MAILER_", frozen=True)

    #: ``smtp://[user:password@]host[:port]`` (STARTTLS when offered; insisted on when there is a password) or ``smtps://``.
    smtp_url: SecretStr = SecretStr("smtp://localhost:25")
    sender: Address = "orders@penstock.example"
    slots: Annotated[int, Field(ge=1, le=1000)] = 16
    #: The deadline of one mail, connecting included.
    timeout: _Span = timedelta(seconds=30)
    #: A mail is tried this often, after ``retry_first`` seconds, then ``retry_factor`` times as long, up to the cap.
    attempts: Annotated[int, Field(ge=1)] = 8
    retry_first: _Span = timedelta(seconds=5)
    retry_factor: Annotated[float, Field(ge=1)] = 4.0
    retry_cap: _Span = timedelta(hours=1)
    unknown_kind_grace: _Span = timedelta(minutes=5)
    #: Subscribers to whom one job fans a digest out, in one transaction.
    digest_page: Annotated[int, Field(ge=1, le=5000)] = 500

    @classmethod
    def read(cls) -> Self:
        """The settings of this process's environment. Raises ``ConfigError``; values are never shown."""
        return read_settings(cls)

    def retry_policy(self) -> RetryPolicy:
        """When a mail that could not be sent is tried again."""
        return RetryPolicy(
            max_attempts=self.attempts, first=self.retry_first, factor=self.retry_factor, cap=self.retry_cap
        )
