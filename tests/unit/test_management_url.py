"""Where the management API is looked for, and as whom."""

from __future__ import annotations

import pytest

from penstock.errors import ConfigError
from penstock.management import ManagementUrl
from penstock.urls import BrokerUrl

PLAIN = BrokerUrl.parse("amqp://mailer:p%40ss@broker.example:5673/shop")


@pytest.mark.parametrize(
    ("url", "at", "base"),
    [
        ("amqp://broker.example:5673", None, "http://broker.example:15672"),
        ("amqp://broker.example", "  ", "http://broker.example:15672"),
        ("amqps://broker.example", None, "https://broker.example:15671"),
        ("amqp://[::1]", None, "http://[::1]:15672"),
        ("amqp://broker.example", "http://other", "http://other:15672"),
        ("amqp://broker.example", "https://other", "https://other:15671"),
        ("amqp://broker.example", "https://[::1]:443/rabbit/", "https://[::1]:443/rabbit"),
    ],
)
def test_it_is_on_the_brokers_host_unless_said_otherwise(url: str, at: str | None, base: str) -> None:
    assert ManagementUrl.of(BrokerUrl.parse(url), at).base == base


def test_the_login_is_the_brokers_unless_it_has_one_of_its_own() -> None:
    assert (ManagementUrl.of(PLAIN).user, ManagementUrl.of(PLAIN).password) == ("mailer", "p@ss")
    same = ManagementUrl.of(PLAIN, "http://other")
    assert (same.user, same.password) == ("mailer", "p@ss")
    own = ManagementUrl.of(PLAIN, "http://deploy:s%3Acret@other")
    assert (own.user, own.password) == ("deploy", "s:cret")


@pytest.mark.parametrize(
    "at", ["ftp://host", "host:15672", "http://", "http://host:port", "http://[::1", "amqp://x:hunter2@y"]
)
def test_what_is_no_address_is_refused_without_showing_it(at: str) -> None:
    with pytest.raises(ConfigError, match="RABBITMQ_MANAGEMENT_URL") as caught:
        ManagementUrl.of(PLAIN, at)
    assert "hunter2" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    assert "p@ss" not in repr(ManagementUrl.of(PLAIN))
