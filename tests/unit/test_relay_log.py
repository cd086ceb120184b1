"""What the log says of a relay: a line for what needs a look, the rest counted in the summary."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import pytest
import structlog

from penstock import Events
from penstock.event_log import subscribe
from penstock.events import OutboxBacklog, Relayed, RelayParked, RelayPutOff


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The log lines so far."""
    lines: list[dict[str, Any]] = []

    def keep(_: object, level: str, line: MutableMapping[str, Any]) -> str:
        lines.append({"level": level, **line})
        raise structlog.DropEvent

    logger = structlog.wrap_logger(logging.getLogger("penstock"), [keep], wrapper_class=structlog.stdlib.BoundLogger)
    monkeypatch.setattr(structlog.stdlib, "get_logger", lambda *_: logger)
    return lines


def test_parked_and_refused_jobs_are_lines_and_relayed_ones_a_count(said: list[dict[str, Any]]) -> None:
    events = Events()
    log = subscribe(events)
    events.emit(Relayed("email.send", 1000, 0.1))
    events.emit(Relayed("email.other", 7, 0.1))
    events.emit(OutboxBacklog("sqlite:///store.db", 3, 1.5, 1))
    events.emit(RelayParked("email.send", "order-7", "Unroutable: nobody"))
    events.emit(RelayPutOff("email.send", 3, "full", 0.5))
    log.close()
    parked, refused, summary = said
    assert parked == {
        "level": "warning",
        "event": "job parked in the outbox",
        "job_id": "order-7",
        "kind": "email.send",
        "error": "Unroutable: nobody",
    }
    assert refused == {
        "level": "warning",
        "event": "not relayed",
        "kind": "email.send",
        "jobs": 3,
        "again_in": 0.5,
        "error": "full",
    }
    assert (summary["event"], summary["relayed"]) == ("summary", 1007)
