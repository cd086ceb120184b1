"""Settings: flag before environment before default, every problem at once, no secret shown."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from penstock.connect import store_for
from penstock.errors import ConfigError
from penstock.settings import BROKER_VARIABLES, LogFormat, LogLevel, Settings, read_settings


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("PENSTOCK_") or name in BROKER_VARIABLES:
            monkeypatch.delenv(name)


def test_everything_has_a_default() -> None:
    settings = Settings.load()
    assert (settings.connect_timeout, settings.drain_timeout) == (timedelta(seconds=30), timedelta(seconds=25))
    assert (settings.slots, settings.log_format, settings.log_level) == (None, LogFormat.AUTO, None)
    assert settings.topology == Path("rabbitmq/topology.yaml")
    assert not settings.production


def test_a_flag_wins_over_the_environment_and_the_environment_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PENSTOCK_SLOTS", "7")
    monkeypatch.setenv("PENSTOCK_CONNECT_TIMEOUT", "2m")
    monkeypatch.setenv("PENSTOCK_LOG_LEVEL", "debug")
    assert Settings.load().slots == 7
    assert Settings.load(slots=None).slots == 7
    assert Settings.load(slots=9).slots == 9
    assert Settings.load().connect_timeout == timedelta(minutes=2)
    assert Settings.load().log_level is LogLevel.DEBUG


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SLOTS", "")
    assert Settings.load().slots is None


@pytest.mark.parametrize(
    ("name", "given", "bound"),
    [("PENSTOCK_STORE_LEASE", "1", "greater than or equal to 3 s"), ("PENSTOCK_DRAIN_TIMEOUT", "2d", "to 86400 s")],
)
def test_the_bounds_of_a_duration_are_told_in_seconds(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, bound: str
) -> None:
    monkeypatch.setenv(name, given)
    with pytest.raises(ConfigError, match=f"^{name}: Input should be .*{bound}$"):
        Settings.load()


def test_all_problems_are_told_at_once_by_the_name_that_sets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "ampq://ada:hunter2@rabbit/jobs")
    monkeypatch.setenv("PENSTOCK_DRAIN_TIMEOUT", "soon")
    monkeypatch.setenv("PENSTOCK_LOG_FORMAT", "xml")
    with pytest.raises(ConfigError) as caught:
        Settings.load(slots=0)
    starts = ("broker URL ampq://ada:***@rabbit", "PENSTOCK_DRAIN_TIMEOUT: 'soon' is not a duration", "--slots: ")
    assert len(caught.value.problems) == 4
    for start in (*starts, "PENSTOCK_LOG_FORMAT: "):
        assert any(problem.startswith(start) for problem in caught.value.problems), start
    assert "hunter2" not in str(caught.value)


def test_the_password_is_in_no_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RABBITMQ_URL", "amqp://ada:hunter2@rabbit/jobs")
    settings = Settings.load()
    assert settings.broker_url.password == "hunter2"
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump()} {settings.broker_url}"


def test_a_missing_broker_url_matters_only_to_who_asks_for_it() -> None:
    settings = Settings.load()
    with pytest.raises(ConfigError, match="set RABBITMQ_URL"):
        _ = settings.broker_url


def test_the_url_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("amqp://ada:hunter2@rabbit/jobs\n")
    monkeypatch.setenv("RABBITMQ_URL_FILE", str(file))
    monkeypatch.setenv("AMQP_URL", "amqp://other")
    assert Settings.load().broker_url.host == "rabbit"


def test_the_store_may_be_named_by_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "store_url"
    file.write_text("postgresql://ada:hunter2@db/shop\n")
    monkeypatch.setenv("PENSTOCK_STORE_URL_FILE", str(file))
    assert Settings.load().store.text == "postgresql://ada:hunter2@db/shop"
    assert store_for().shown == "postgresql://db/shop"
    monkeypatch.setenv("PENSTOCK_STORE_URL", "sqlite:///here.db")
    assert Settings.load().store.shown == "sqlite:///here.db"


def test_a_secret_of_a_service_may_be_named_by_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Mail(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="MAIL_")
        url: SecretStr = SecretStr("smtp://localhost")
        slots: int = 1

    monkeypatch.setenv("MAIL_URL_FILE", str(tmp_path / "gone"))
    monkeypatch.setenv("MAIL_SLOTS", "many")
    with pytest.raises(ConfigError) as caught:
        read_settings(Mail)
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        f"MAIL_URL_FILE {tmp_path}/gone",
        "MAIL_SLOTS",
    ]
    (tmp_path / "gone").write_text("smtp://ada:hunter2@mail\n")
    monkeypatch.setenv("MAIL_SLOTS", "2")
    assert read_settings(Mail).url.get_secret_value() == "smtp://ada:hunter2@mail"
