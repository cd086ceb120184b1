"""What the environment and the command line say: one frozen value, every problem told at once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args  # flags of any type are handed in

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock import failpoints, urls
from penstock.claiming import DEAD_RETENTION, LEASE, RETENTION, StoreTerms
from penstock.claims import StoreUrl
from penstock.connect import STORE, STORE_VARIABLE
from penstock.durations import duration
from penstock.errors import ConfigError
from penstock.secret_files import secret_from
from penstock.topology.reading import DEFAULT_FILE
from penstock.urls import BrokerUrl

S = TypeVar("S", bound=BaseSettings)

#: The variables that can name the broker, in the order in which they count.
BROKER_VARIABLES = ("RABBITMQ_URL", "RABBITMQ_URL_FILE", "AMQP_URL", "CLOUDAMQP_URL")


class LogFormat(StrEnum):
    """How log lines look: for people or for machines; ``auto`` asks whether anybody is watching."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """The least level that is logged."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


class Profile(StrEnum):
    """Where this process runs; what is only meant for development is refused in production."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


def _span(value: object) -> object:
    return duration(value) if isinstance(value, str) else value


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


#: A duration as settings are written: seconds, or such as ``5m``. Bounds are the setting's own.
Span = Annotated[timedelta, BeforeValidator(_span)]

#: How pydantic writes a duration that is the bound of a setting.
_BOUND = re.compile(r"datetime\.timedelta\(([^)]*)\)")

_Span = Annotated[Span, Field(ge=timedelta(0), le=timedelta(days=1))]
_Lease = Annotated[Span, Field(ge=timedelta(seconds=3), le=timedelta(hours=1))]
_Retention = Annotated[Span, Field(ge=timedelta(hours=1), le=timedelta(days=3650))]


class Settings(BaseSettings):
    """Settings of the command line and of workers. Immutable; shows no password.

    Sources, the first one counts: flags (``load(slots=4)``), then the environment, then the defaults here.
    """

    model_config = SettingsConfigDict(frozen=True, env_prefix="PENSTOCK_", env_ignore_empty=True, extra="ignore")

    #: How long the first connection is tried (seconds, or such as ``2m``).
    connect_timeout: _Span = timedelta(seconds=30)
    #: How long running jobs may take to end once a stop was asked for.
    drain_timeout: _Span = timedelta(seconds=25)
    #: Jobs run at once by a worker; None is what its factory says.
    slots: Annotated[int, Field(ge=1, le=10_000)] | None = None
    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = LogFormat.AUTO
    #: None is INFO for a worker and WARNING for the other commands.
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] | None = None
    #: The description of exchanges and queues.
    topology: Path = DEFAULT_FILE
    #: Where jobs are remembered whose effect happens once: ``sqlite:///``, ``postgresql://`` or ``redis://``. A file
    #: may say it: ``PENSTOCK_STORE_URL_FILE``.
    store_url: SecretStr | None = None
    #: Whether a worker makes or updates the store's schema when it starts (development; ``--apply`` sets it).
    store_migrate: bool = False
    #: How long a claim holds without a sign of life of its worker.
    store_lease: _Lease = LEASE
    #: How long a job is remembered, and how long its dead letter may be replayed without ``--force``.
    store_retention: _Retention = RETENTION
    dead_retention: _Retention = DEAD_RETENTION
    #: Where ``/metrics``, ``/healthz`` and ``/readyz`` are served: None is nowhere, 0 a free port. Of ``--processes N``
    #: each has its own, from this one on.
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    metrics_host: str = "127.0.0.1"
    #: Processes that ``penstock status`` asks for their metrics, ``host:port`` by commas.
    metrics_targets: str | None = None
    #: Names of fields, by commas, that are not shown of dead letters, beside those that sound like secrets.
    redact: str = ""
    env: Annotated[Profile, BeforeValidator(_lower)] = Profile.DEVELOPMENT
    _broker: BrokerUrl | None = PrivateAttr(default=None)

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """Read *flags* (None: not given) and the environment. Raises ``ConfigError`` naming every variable at fault."""
        given = {name: value for name, value in flags.items() if value is not None}
        failpoints.check(os.environ)
        problems: list[str] = []
        broker = _broker(problems)
        try:
            settings = cls(**_secrets(cls, problems) | given)
        except ValidationError as error:
            problems += _lines(error, lambda name: _source(name, given))
        if problems:
            raise ConfigError(*problems)
        settings._broker = broker
        return settings

    @property
    def broker_url(self) -> BrokerUrl:
        """Where the broker is. Raises ``ConfigError`` when nothing says it."""
        return urls.from_env({}) if self._broker is None else self._broker

    @property
    def store(self) -> StoreUrl:
        """Where the store is: in development a local file when nothing says it. Raises ``ConfigError``."""
        if self.store_url is None and self.production:
            raise ConfigError(f"{STORE_VARIABLE} is not set, and PENSTOCK_ENV says production: name the store")
        return StoreUrl.parse(STORE if self.store_url is None else self.store_url.get_secret_value())

    @property
    def store_terms(self) -> StoreTerms:
        """How a worker uses its store."""
        return StoreTerms(self.store_lease, self.store_retention, self.dead_retention)

    @property
    def redacted_names(self) -> frozenset[str]:
        """The names in ``redact``, in lower case."""
        return frozenset(name.strip().lower() for name in self.redact.split(",") if name.strip())

    @property
    def production(self) -> bool:
        """Whether this is the real thing."""
        return self.env is Profile.PRODUCTION


def _broker(problems: list[str]) -> BrokerUrl | None:
    """The broker the environment names; None when it names none or when that is a problem."""
    if not any(os.environ.get(name, "").strip() for name in BROKER_VARIABLES):
        return None
    try:
        return urls.from_env(os.environ)
    except ConfigError as error:
        problems += error.problems
        return None


def read_settings(cls: type[S]) -> S:
    """The settings *cls* of a service, from the environment. Raises ``ConfigError`` naming every variable at fault.

    A setting that is a ``SecretStr`` may also be named by a file: ``NAME_FILE``.
    """
    problems: list[str] = []
    secrets = _secrets(cls, problems)
    try:
        settings = cls(**secrets)
    except ValidationError as error:
        prefix = cls.model_config.get("env_prefix", "")
        problems += _lines(error, lambda name: f"{prefix}{name.upper()}")
    if problems:
        raise ConfigError(*problems)
    return settings


def _secrets(cls: type[BaseSettings], problems: list[str]) -> dict[str, Any]:
    """The values of those fields of *cls* that are secrets: each may also be named by a file, ``NAME_FILE``."""
    values = {}
    for name, field in cls.model_fields.items():
        if SecretStr in (field.annotation, *get_args(field.annotation)):
            try:
                values[name] = secret_from(os.environ, f"{cls.model_config.get('env_prefix', '')}{name.upper()}")
            except ConfigError as error:
                problems += error.problems
    return {name: value for name, value in values.items() if value is not None}


def _lines(error: ValidationError, source: Callable[[str], str]) -> list[str]:
    """A line for each problem, without the values: one may be a secret in the wrong place."""
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return [f"{source(str(p['loc'][0]))}: {_words(p['msg'])}" for p in problems]


def _words(message: str) -> str:
    return _BOUND.sub(_in_seconds, message.removeprefix("Value error, "))


def _in_seconds(bound: re.Match[str]) -> str:
    parts = dict(part.split("=") for part in bound[1].split(", ") if "=" in part)  # timedelta(0) has none
    return f"{timedelta(**{unit: int(number) for unit, number in parts.items()}).total_seconds():g} s"


def _source(name: str, given: dict[str, Any]) -> str:
    if name in given:
        return f"--{name.replace('_', '-')}"
    return name if name.isupper() else f"PENSTOCK_{name.upper()}"
