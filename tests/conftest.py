"""What every test may ask for by name, and how properties are tried."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from hypothesis import settings

from tests.support.brokers import broker, broker_version, own_broker, vhost, vhost_url
from tests.support.postgres import own_postgres, postgres_server, postgres_url
from tests.support.redis import own_redis, redis_numbers, redis_server, redis_url

__all__ = [
    "broker",
    "broker_version",
    "own_broker",
    "own_postgres",
    "own_redis",
    "postgres_server",
    "postgres_url",
    "redis_numbers",
    "redis_server",
    "redis_url",
    "vhost",
    "vhost_url",
]

# A machine under load is slow, not wrong: no deadline per example.
settings.register_profile("penstock", deadline=None)
settings.load_profile("penstock")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test printed and logged goes from process to process as UTF-8, and some print what is none, on purpose."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
