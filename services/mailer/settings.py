"""The mailer's settings, from ``MAILER_*`` in the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from penstock.pacing.circuit_breaker import Terms
from penstock.service_settings import Attempts, Factor, Pause, RetrySettings
from penstock_jobs.email import Address
from services.mailer.domains import Rules
from services.mailer.limits import Limits, numbers, rates


def _rates(value: object) -> object:
    return rates(value) if isinstance(value, str) else value


def _numbers(value: object) -> object:
    return numbers(value) if isinstance(value, str) else value


_Rates = Annotated[Limits[float], NoDecode, BeforeValidator(_rates)]
_Numbers = Annotated[Limits[int], NoDecode, BeforeValidator(_numbers)]


class Settings(RetrySettings):
    """What can be told to a mailer. Durations are seconds, or such as ``5m``."""

    model_config = SettingsConfigDict(env_prefix="MAILER_")

    #: ``smtp://[user:password@]host[:port]`` (STARTTLS when offered; insisted on when there is a password) or ``smtps://``.
    smtp_url: SecretStr = SecretStr("smtp://localhost:25")
    sender: Address = "orders@penstock.example"
    slots: Annotated[int, Field(ge=1, le=1000)] = 16
    #: The deadline of one mail, connecting included.
    timeout: Annotated[Pause, Field(gt=timedelta(0))] = timedelta(seconds=30)
    #: Mails to a domain, such as ``example.org=10/s, *=100/s``, over all mailers that share a database; and at once, in
    #: each process, such as ``example.org=2, *=8``.
    throttle: _Rates = Limits()
    at_once: _Numbers = Limits()
    #: After so many failures one after the other a domain is left alone; for as long as its mails would be.
    failures: Annotated[int, Field(ge=1)] = 5
    #: Below which folder the files are that go with mails, and the most of them in one mail (MiB).
    attachments_dir: Path = Path("var/reports/output")
    attachments_max: Annotated[int, Field(ge=1, le=100)] = 10
    #: A mail is tried this often, after ``retry_first`` seconds, then ``retry_factor`` times as long, up to the cap.
    attempts: Attempts = 8
    retry_first: Pause = timedelta(seconds=5)
    retry_factor: Factor = 4.0
    retry_cap: Pause = timedelta(hours=1)
    unknown_kind_grace: Pause = timedelta(minutes=5)
    #: Subscribers to whom one job fans a digest out, in one transaction.
    digest_page: Annotated[int, Field(ge=1, le=5000)] = 500

    def rules(self) -> Rules:
        """What mails to each domain are held to."""
        terms = Terms(self.slots, self.failures, self.retry_policy().delay_after, relapses=True)
        return Rules(self.throttle, self.at_once, terms)
