"""The sync's settings, from ``SYNC_*`` in the environment."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field
from pydantic_settings import SettingsConfigDict

from penstock import RetryPolicy
from penstock.pacing.circuit_breaker import Terms
from penstock.pacing.rate_limits import per_second
from penstock.service_settings import Attempts, Factor, RetrySettings
from penstock.settings import Span

SOURCES = Path(__file__).with_name("sync.yaml")

#: The longest a breaker stays open, as a multiple of its first time.
_LONGEST = 16


def _rate(value: object) -> object:
    return per_second(value) if isinstance(value, str) else value


_Span = Annotated[Span, Field(gt=timedelta(0), le=timedelta(days=1))]


class Settings(RetrySettings):
    """What can be told to a sync. Durations are seconds, or such as ``5m``."""

    model_config = SettingsConfigDict(env_prefix="SYNC_")

    #: What is pulled from where; see ``sync.yaml``.
    sources: Path = SOURCES
    slots: Annotated[int, Field(ge=1, le=1000)] = 8
    #: The deadline of one page, redirects included, and the most it may have.
    timeout: _Span = timedelta(seconds=30)
    max_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024)] = 8 * 1024 * 1024
    #: Pages in one pull; the next one goes on from there.
    max_pages: Annotated[int, Field(ge=1)] = 1000
    #: A pull of all sources that has not begun by then is not begun any more: the next one does it all.
    stale_after: _Span = timedelta(hours=1)
    #: How often each process asks a host of which ``sync.yaml`` says nothing.
    rate: Annotated[float, BeforeValidator(_rate), Field(gt=0)] = 10.0
    #: The longest that Retry-After is believed.
    retry_after_cap: _Span = timedelta(hours=1)
    #: After so many failures one after the other a host is left alone, for so long at first.
    breaker_failures: Annotated[int, Field(ge=1)] = 5
    breaker_cooldown: _Span = timedelta(seconds=30)
    #: A page is tried this often, after ``retry_first``, then ``retry_factor`` times as long, up to the cap.
    attempts: Attempts = 6
    retry_first: _Span = timedelta(seconds=5)
    retry_factor: Factor = 4.0
    retry_cap: _Span = timedelta(minutes=15)

    def terms(self) -> Terms:
        """How hosts are treated."""
        first = self.breaker_cooldown
        cooldown = RetryPolicy(first=first, factor=2, cap=first * _LONGEST).delay_after
        return Terms(self.slots, self.breaker_failures, cooldown, rate=self.rate)
