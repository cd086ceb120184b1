"""The intake's settings, from ``INTAKE_*`` in the environment."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from penstock.errors import ConfigError
from penstock.service_settings import ServiceSettings
from penstock.settings import Span

_MIB = 1024 * 1024


_Span = Annotated[Span, Field(gt=timedelta(0), le=timedelta(minutes=5))]


class Settings(ServiceSettings):
    """What can be told to an intake. Durations are seconds, or such as ``5m``; sizes are bytes."""

    model_config = SettingsConfigDict(env_prefix="INTAKE_", env_ignore_empty=True)

    host: str = "127.0.0.1"
    #: 0 takes a free one, which the log names.
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    #: The file that ``python -m services.intake token`` writes. Without one, only this machine is listened to.
    tokens: Path | None = None
    #: Whether the OpenAPI page is served, for which no token is asked; None is only to this machine.
    docs: bool | None = None
    #: Of one job's arguments, of a whole batch, and jobs of a batch.
    max_body: Annotated[int, Field(ge=1, le=16 * _MIB)] = _MIB
    max_batch_body: Annotated[int, Field(ge=1, le=128 * _MIB)] = 8 * _MIB
    max_batch: Annotated[int, Field(ge=1, le=10_000)] = 1000
    #: Requests and jobs per second and token, and how many of them may come at once.
    rate: Annotated[float, Field(gt=0)] = 1000.0
    burst: Annotated[int, Field(ge=1)] = 2000
    #: Requests under way at once; one more is sent away.
    max_requests: Annotated[int, Field(ge=1, le=100_000)] = 500
    #: From the first byte of a request to the last of its answer, and of it for the broker's confirm.
    request_timeout: _Span = timedelta(seconds=10)
    publish_timeout: _Span = timedelta(seconds=2)
    #: Idempotency keys kept in memory.
    remembered_keys: Annotated[int, Field(ge=0, le=10_000_000)] = 50_000

    @classmethod
    def read(cls) -> Self:
        """The settings of this process's environment. Raises ``ConfigError`` with every problem.

        One of them is an address that others reach where no tokens are named: the door is closed unless opened.
        """
        settings = super().read()
        if settings.tokens is None and not settings.to_this_machine:
            raise ConfigError(
                f"INTAKE_HOST is {settings.host}, which others reach, and INTAKE_TOKENS names no file: make a token "
                "with python -m services.intake token NAME --kinds PATTERN, or listen on 127.0.0.1"
            )
        return settings

    @property
    def to_this_machine(self) -> bool:
        """Whether nobody else can reach ``host``."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def shows_docs(self) -> bool:
        """Whether the OpenAPI page is served."""
        return self.to_this_machine if self.docs is None else self.docs
