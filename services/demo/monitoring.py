"""Prometheus and Alertmanager beside the demo: the files of ``infra``, pointed at what runs here."""

from __future__ import annotations

import asyncio
import re
import shutil
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # YAML

import yaml

from penstock import PenstockError
from penstock.testing.free_ports import free_ports
from services.demo.crew import ROOT, Crew

INFRA = ROOT / "infra"

#: What they are called: by Debian, and by those who made them.
PROGRAMS = (("prometheus",), ("prometheus-alertmanager", "alertmanager"))

_READY_WITHIN = 60.0
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\[|\boffset |\b(?:for|keep_firing_for|group_wait|\w+_interval): )(\d+)([smhd])\b")


class MonitoringFailed(PenstockError):
    """Prometheus or Alertmanager did not come up."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched, by ``host:port``, and who hears of it.

    *processes* are Penstock's own, *broker* is RabbitMQ's Prometheus plugin, *mail* an SMTP server, *pager* a URL that
    takes what is critical (None: nobody). With a *pace* of 30 all that the files give minutes for takes 2 s each.
    """

    processes: Sequence[str]
    broker: str
    mail: str
    pager: str | None = None
    pace: float = 1.0


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Where they answer."""

    prometheus: str
    alertmanager: str


def sooner(text: str, pace: float) -> str:
    """*text*, of a configuration or of rules, with every duration divided by *pace*."""
    return _DURATION.sub(lambda found: f"{found[1]}{round(1000 * int(found[2]) * _SECONDS[found[3]] / pace)}ms", text)


def installed() -> list[str] | None:
    """The programs, Prometheus first, or None where one of them is missing."""
    found = [next(filter(shutil.which, names), None) for names in PROGRAMS]
    return [name for name in found if name] if all(found) else None


async def start(crew: Crew, folder: Path, watched: Watched) -> Monitoring:
    """Start both as members of *crew*, with their files in *folder*, and return once they are ready.

    Raises ``MonitoringFailed`` when they are not installed or not ready in time, ``MemberDied`` when one of them ends.
    """
    programs = installed()
    if programs is None:
        raise MonitoringFailed("prometheus and prometheus-alertmanager are not installed")
    places = [f"127.0.0.1:{port}" for port in free_ports(2)]
    _write_prometheus(folder, watched, alertmanager=places[1])
    _write_alertmanager(folder, watched)
    storages = ("--storage.tsdb.path", "--storage.path")
    for program, name, storage, place in zip(programs, ("prometheus", "alertmanager"), storages, places, strict=True):
        options = [f"--config.file={folder / name}.yml", f"{storage}={folder / name}", f"--web.listen-address={place}"]
        more = ["--cluster.listen-address="] if name == "alertmanager" else []
        await crew.start(name, *options, *more, program=program)
    for place in places:
        await _ready(crew, f"http://{place}")
    return Monitoring(*(f"http://{place}" for place in places))


def _write_prometheus(folder: Path, watched: Watched, alertmanager: str) -> None:
    (folder / "rules").mkdir(parents=True, exist_ok=True)
    config = _read("prometheus/prometheus.yml")
    targets = {"penstock": list(watched.processes), "rabbitmq": [watched.broker], "rabbitmq-queues": [watched.broker]}
    for scraped in config["scrape_configs"]:
        scraped["static_configs"] = [{"targets": targets[scraped["job_name"]]}]
    config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
    _write(folder / "prometheus.yml", config, watched.pace)
    for rules in (INFRA / "prometheus" / "rules").glob("*.yml"):
        (folder / "rules" / rules.name).write_text(sooner(rules.read_text(), watched.pace))


def _write_alertmanager(folder: Path, watched: Watched) -> None:
    config = _read("alertmanager/alertmanager.yml")
    for receiver in config["receivers"]:
        for mail in receiver.get("email_configs", ()):
            mail |= {"smarthost": watched.mail, "require_tls": False}
        if watched.pager is None:
            receiver.pop("webhook_configs", None)
        for hook in receiver.get("webhook_configs", ()):
            hook["url"] = watched.pager
    _write(folder / "alertmanager.yml", config, watched.pace)
    shutil.copy(INFRA / "alertmanager" / "penstock.tmpl", folder)


def _read(name: str) -> Any:
    return yaml.safe_load((INFRA / name).read_text())


def _write(path: Path, config: object, pace: float) -> None:
    path.write_text(sooner(yaml.safe_dump(config), pace))


async def _ready(crew: Crew, address: str) -> None:
    until = time.monotonic() + _READY_WITHIN
    while not await asyncio.to_thread(_answers, f"{address}/-/ready"):
        crew.check()
        if time.monotonic() > until:
            raise MonitoringFailed(f"{address} was not ready within {_READY_WITHIN:g} s")
        await asyncio.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
