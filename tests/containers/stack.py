"""docker-compose.yml at work: a copy of the checkout, a project of its own, and what its containers say."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any  # what docker inspect says

import orjson

from tests.support.waiting import wait_until

SERVICES = ("intake", "audit", "credits", "mailer", "media", "reports", "janitor", "sync", "relay", "scheduler")


class Stack:
    """One project in *folder*, for which *variables* are set."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.folder = folder
        self.variables = dict(variables)
        self._environment = os.environ | self.variables

    @property
    def name(self) -> str:
        """The project's."""
        return self.variables["COMPOSE_PROJECT_NAME"]

    def run(self, *command: str, within: float = 120) -> str:
        """What *command* says, which must succeed."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=within,
            check=False,
        )
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, f"{command}: {said[-2000:]}\n{done.stderr.decode(errors='replace')[-2000:]}"
        return said

    def compose(self, *words: str, within: float = 300) -> str:
        """Compose as its users run it."""
        return self.run("infra/scripts/compose", *words, within=within)

    def up(self, **scale: int) -> None:
        """Bring everything up, or to *scale*, without touching containers that are right."""
        wanted = [f"{service}={number}" for service, number in scale.items()]
        self.compose(
            "--profile", "demo", "up", "-d", "--no-build", *(word for one in wanted for word in ("--scale", one))
        )

    def containers(self, service: str) -> list[str]:
        """The ids of the containers of *service* that run."""
        return self.compose("ps", "-q", service).split()

    def inspect(self, container: str) -> Any:
        """What Docker knows of it."""
        return orjson.loads(self.run("docker", "inspect", container))[0]

    def ready(self, container: str) -> bool:
        """Whether its process says so itself."""
        asked = ["docker", "exec", container, "python", "-IS", "/app/healthcheck.py", "/readyz"]
        return (
            subprocess.run(asked, env=self._environment, capture_output=True, timeout=30, check=False).returncode == 0
        )

    def all_ready(self, *services: str, within: float = 90) -> None:
        """Wait until every container of *services* is ready."""
        for service in services:
            for container in self.containers(service):
                wait_until(lambda container=container: self.ready(container), within=within)  # type: ignore[misc]

    def crash(self, container: str) -> None:
        """Kill its process from outside, as a machine does that is out of memory: the restart policy must act."""
        os.kill(int(self.inspect(container)["State"]["Pid"]), signal.SIGKILL)

    def restart(self, container: str) -> None:
        """Stop it gently and start it, and wait until it is ready."""
        self.run("docker", "restart", "--time", "40", container)
        wait_until(lambda: self.ready(container), within=90)

    def log(self, container: str) -> Iterator[tuple[str, Any]]:
        """Its lines of JSON, each with the time (RFC 3339) at which Docker got it."""
        both = 'exec docker logs --timestamps "$0" 2>&1'  # workers log on standard error, the catcher on the other
        for line in self.run("sh", "-c", both, container).splitlines():
            at, _, text = line.partition(" ")
            if text.startswith("{"):
                yield at, orjson.loads(text)

    def rows(self, query: str) -> list[list[str]]:
        """What the database answers."""
        [postgres] = self.containers("postgres")
        asked = 'PGPASSWORD=$(cat /run/secrets/postgres_password) exec psql -h 127.0.0.1 -U penstock -qAtF "|" -c "$0"'
        said = self.run("docker", "exec", postgres, "sh", "-c", asked, query)
        return [line.split("|") for line in said.splitlines()]

    def queues(self) -> dict[str, int]:
        """How many messages are in each queue, in hand or not."""
        [rabbitmq] = self.containers("rabbitmq")
        said = self.run(
            "docker", "exec", rabbitmq, "rabbitmqctl", "-q", "--no-table-headers", "list_queues", "name", "messages"
        )
        return {name: int(number) for name, number in (line.split("\t") for line in said.splitlines())}
