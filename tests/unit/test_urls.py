"""Broker URLs: what they mean when they are right, and how clearly they are refused when they are not."""

from __future__ import annotations

import pickle
import ssl
from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.urls import BrokerUrl, from_env


def test_a_full_url_is_read_part_by_part() -> None:
    url = BrokerUrl.parse("amqp://orders:p%40ss@broker.example:5673/shop%2Feu?heartbeat=5")
    assert (url.scheme, url.host, url.port) == ("amqp", "broker.example", 5673)
    assert (url.user, url.password, url.vhost) == ("orders", "p@ss", "shop/eu")
    assert url.heartbeat == 5


@pytest.mark.parametrize(
    "text", ["amqp://localhost", "amqp://localhost/", "amqp://localhost//", "amqp://localhost/%2f"]
)
def test_missing_parts_are_those_of_amqp(text: str) -> None:
    assert BrokerUrl.parse(text) == BrokerUrl()


def test_tls_has_its_own_port_and_no_context_exists_without_it() -> None:
    assert BrokerUrl.parse("amqps://broker.example").port == 5671
    assert BrokerUrl.parse("amqp://broker.example").ssl_context() is None


def test_tls_always_verifies_certificate_and_host() -> None:
    context = BrokerUrl.parse("amqps://broker.example").ssl_context()
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_missing_ca_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"cafile=/nowhere/ca.pem: No such file"):
        BrokerUrl.parse("amqps://broker.example/?cafile=/nowhere/ca.pem").ssl_context()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ampq://broker", "ampq is not a scheme"),
        ("broker:5672", "broker is not a scheme"),
        ("", "nothing is not a scheme"),
        ("amqp://", "the host is missing"),
        ("amqp://broker:0", "port 0"),
        ("amqp://broker:70000", "not a number from 1 to 65535"),
        ("amqp://broker:x", "not a number from 1 to 65535"),
        ("amqp://[::1", "percent-encoded"),
        ("amqp://broker/#v", "%23"),
        ("amqp://broker?prefetch=3", "unknown option prefetch"),
        ("amqp://broker?cafile=ca.pem", "cafile needs amqps"),
        ("amqps://broker?keyfile=key.pem", "keyfile needs certfile"),
        ("amqp://broker?heartbeat=-1", "heartbeat must be"),
        ("amqp://broker?heartbeat=²", "heartbeat must be"),
    ],
)
def test_a_wrong_url_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BrokerUrl.parse(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        BrokerUrl.parse("ampq://?speed=9")
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    "text",
    [
        "amqp://user:hunter2@broker:port",
        "amqp://user:hunter2/x@broker",
        "amqp://user:hunter2#x@broker",
        "amqp://user:x?hunter2@broker",
        "ampq://user:hunter2@broker",
        "user:hunter2@broker",
        "amqp://user:hunter2",
        "user:hunter2",
        "amqp://user:a@hunter2@broker:x",
    ],
)
def test_a_password_is_never_shown(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        BrokerUrl.parse(text)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_good_url_never_shows_its_password() -> None:
    url = BrokerUrl.parse("amqp://user:hunter2@[::1]/jobs")
    assert "hunter2" not in f"{url} {url!r} {url.masked}"
    assert url.masked == "amqp://user:***@[::1]:5672/jobs"


def test_a_url_can_be_sent_to_another_process() -> None:
    url = BrokerUrl.parse("amqps://user:secret@broker/?cafile=ca.pem")
    assert pickle.loads(pickle.dumps(url)) == url


def test_the_environment_is_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("amqp://from-file\n")
    environ = {"CLOUDAMQP_URL": "amqp://cloud"}
    assert from_env(environ).host == "cloud"
    environ["AMQP_URL"] = "amqp://plain"
    assert from_env(environ).host == "plain"
    environ["RABBITMQ_URL_FILE"] = str(file)
    assert from_env(environ).host == "from-file"
    environ["RABBITMQ_URL"] = "amqp://first"
    assert from_env(environ).host == "first"


def test_an_empty_variable_counts_as_not_set() -> None:
    assert from_env({"RABBITMQ_URL": " ", "AMQP_URL": "amqp://plain"}).host == "plain"


@pytest.mark.parametrize("environ", [{}, {"RABBITMQ_URL": ""}])
def test_no_url_at_all_says_what_to_set(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="set RABBITMQ_URL"):
        from_env(environ)


def test_an_unreadable_or_empty_url_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"RABBITMQ_URL_FILE .*gone: cannot be read"):
        from_env({"RABBITMQ_URL_FILE": str(tmp_path / "gone")})
    (tmp_path / "empty").touch()
    with pytest.raises(ConfigError, match="the file is empty"):
        from_env({"RABBITMQ_URL_FILE": str(tmp_path / "empty")})
