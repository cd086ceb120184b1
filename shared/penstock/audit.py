"""The audit trail: who does what to which dead letters, written into ``jobs.dead.audit`` before it is done."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any  # entries are JSON

import orjson

from penstock.clock import Clock, new_job_id
from penstock.errors import TopologyMismatch, Unroutable
from penstock.message import Message
from penstock.sending import Sender
from penstock.topology.names import AUDIT

#: Seconds the broker may take to confirm an entry.
_CONFIRM = 15.0


def actor() -> str:
    """Who runs this process, as ``ada@host``; with ``sudo``, who asked for it."""
    try:
        user = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have a number and no name
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


@dataclass(frozen=True, slots=True)
class Deed:
    """One action on one queue, by one call: what was asked for, and why."""

    action: str
    queue: str
    where: Mapping[str, Any]
    because: str = ""


class Audit:
    """Writes the entries of *who*. One event loop; safe to share by its tasks.

    Every method raises ``BrokerError`` when the entry is not on the broker's disk; then nothing may be done.
    """

    def __init__(self, sender: Sender, clock: Clock, who: str) -> None:
        self.who = who
        self._sender = sender
        self._clock = clock

    def opened(self, deed: Deed) -> Entries:
        """The entries of *deed*; nothing is written yet."""
        return Entries(self, deed)

    async def write(self, deed: Deed, facts: Mapping[str, Any]) -> None:
        """Write one entry and return once it is confirmed."""
        now = self._clock.now_ms()
        entry = {
            "when": datetime.fromtimestamp(now / 1000, UTC).isoformat(timespec="milliseconds"),
            "who": self.who,
            "action": deed.action,
            "queue": deed.queue,
            "filter": deed.where,
            **({"because": deed.because} if deed.because else {}),
            **facts,
        }
        message = Message(orjson.dumps(entry), message_id=new_job_id(now), timestamp=now // 1000, app_id="penstock")
        try:
            await self._sender.send(message, AUDIT, deed.action, asyncio.get_running_loop().time() + _CONFIRM)
        except (TopologyMismatch, Unroutable) as error:
            raise TopologyMismatch(
                f"nothing was done, for the audit has no place: penstock topology apply ({error})"
            ) from error


class Entries:
    """The entries of one deed, which share a run id: the letters it touches, before it does, and its end."""

    def __init__(self, audit: Audit, deed: Deed) -> None:
        self._audit = audit
        self._deed = deed
        self._run = new_job_id()
        self._begun = False

    async def touch(self, ids: Sequence[str]) -> None:
        """Write that the letters *ids* are about to be acted upon."""
        self._begun = True
        await self._audit.write(self._deed, {"run": self._run, "stage": "begins", "count": len(ids), "ids": ids})

    async def end(self, done: int, stayed: int, stopped: object = None) -> None:
        """Write how it ended; nothing when no letter was touched."""
        if self._begun:
            why = {} if stopped is None else {"stopped": str(stopped)}
            await self._audit.write(
                self._deed, {"run": self._run, "stage": "ends", "count": done, "stayed": stayed, **why}
            )
