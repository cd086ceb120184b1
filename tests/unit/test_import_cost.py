"""What an import brings with it: a module that only declares kinds must stay light, and a producer needs little."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Loaded only by those who connect, serve or validate.
HEAVY = {
    "pika",
    "aio_pika",
    "aiormq",
    "asyncio",
    "pydantic",
    "tenacity",
    "ssl",
    "socket",
    "uvloop",
    "concurrent.futures",
}

DRIVERS = {"pika", "aio_pika", "aiormq"}

#: What ``pip install penstock`` does not bring without extras.
EXTRAS = {"aio_pika", "aiormq", "yaml", "pydantic_settings", "structlog", "typer", "rich", "httpx2", "uvloop"}


def loaded_by(code: str) -> set[str]:
    """The modules in a fresh interpreter after *code*."""
    program = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    return set(done.stdout.split())


def test_importing_penstock_loads_no_driver_and_no_event_loop() -> None:
    assert HEAVY & loaded_by("import penstock") == set()


def test_declaring_a_kind_and_a_handler_loads_nothing_more() -> None:
    assert (
        HEAVY
        & loaded_by(
            "from penstock import Handlers, JobKind, RetryPolicy, Retry\n"
            "KIND = JobKind('email.send', dict)\n"
            "handlers = Handlers()\n"
            "@handlers.on(KIND, retry=RetryPolicy(max_attempts=8))\n"
            "def send(job): ..."
        )
        == set()
    )


@pytest.mark.parametrize("name", ["Publisher", "AsyncPublisher", "Worker"])
def test_importing_a_role_loads_no_driver(name: str) -> None:
    assert DRIVERS & loaded_by(f"from penstock import {name}") == set()


def test_a_publisher_and_the_reading_of_arguments_need_no_extra() -> None:
    loaded = loaded_by(
        "from penstock import JobKind, Publisher\n"
        "Publisher('amqp://localhost').close()\n"
        "JobKind('email.send', dict).decode(b'{}')"
    )
    assert loaded & EXTRAS == set()
    assert "pika" in loaded


def test_metrics_are_loaded_by_those_who_show_them() -> None:
    assert "prometheus_client" not in loaded_by("import penstock.worker_process, penstock.metrics")


def test_a_worker_does_not_load_the_driver_that_only_declares() -> None:
    assert {"aio_pika", "aiormq"} & loaded_by(
        "from penstock import Worker\nfrom penstock.connect import broker_for\nbroker_for('amqp://localhost')"
    ) == set()


def test_help_loads_no_command() -> None:
    loaded = loaded_by("from penstock.cli.main import run\nrun(['--help'])")
    assert loaded & (HEAVY | EXTRAS - {"typer"}) == set()
    assert not {name for name in loaded if name.startswith("penstock.cli.")} - {"penstock.cli.main", "penstock.cli.app"}


def test_a_look_at_the_broker_loads_no_logging_library() -> None:
    assert {"structlog", "pika"} & loaded_by(
        "import penstock.cli.status, penstock.cli.workers, penstock.cli.queues"
    ) == set()
