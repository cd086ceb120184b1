"""Who consumes the work queues, put together from connections, consumers and channels of the management API."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any  # the management API's JSON

from penstock.headers import SLOTS
from penstock.management import Management
from penstock.overview.model import WorkerState
from penstock.topology.names import work_queue
from penstock.topology.spec import name_problem

Json = Mapping[str, Any]

#: What our connections are called: ``mailer@host:pid consume``.
_NAME = re.compile(r"(?P<name>.+)@(?P<host>.+):(?P<pid>\d+) (?P<what>consume|publish)")

_OURS = "Penstock"
_CONSUMES = "consume"


@dataclass
class _Process:
    """What is gathered of one process."""

    name: str
    host: str
    pid: int | None
    connections: list[Json] = field(default_factory=list)
    consumers: list[Json] = field(default_factory=list)
    unacked: int = 0


def workers(management: Management) -> list[WorkerState]:
    """Every process that consumes a work queue, or is a worker of ours that should, by name. Raises as ``Management``.

    A login without the tag ``monitoring`` sees its own connections only. What came or went within the last seconds may
    be missing or still there.
    """
    columns = "name,user,user_provided_name,client_properties,peer_host,connected_at,state"
    connections = management.read("vhosts/{vhost}/connections", columns=columns)
    consumers = management.read("consumers/{vhost}", columns="queue.name,channel_details,prefetch_count,arguments")
    channels = management.read(
        "vhosts/{vhost}/channels", columns="connection_details.name,messages_unacknowledged,consumer_count"
    )
    found = [_state(process) for process in _processes(connections, consumers, channels)]
    return sorted(found, key=lambda worker: (worker.name, worker.host, worker.pid or 0))


def _processes(connections: Iterable[Json], consumers: Iterable[Json], channels: Iterable[Json]) -> Iterator[_Process]:
    by_connection: dict[str, _Process] = {}
    by_identity: dict[tuple[str, str, int | None], _Process] = {}
    for connection in connections:
        fresh, works = _identified(connection)
        process = by_identity.setdefault((fresh.name, fresh.host, fresh.pid), fresh)
        process.connections.append(connection)
        if works:
            by_connection[connection["name"]] = process
    for consumer in consumers:
        process_of = by_connection.get((consumer.get("channel_details") or {}).get("connection_name", ""))
        if process_of is not None and _is_work(consumer["queue"]["name"]):
            process_of.consumers.append(consumer)
    for channel in channels:
        process_of = by_connection.get((channel.get("connection_details") or {}).get("name", ""))
        if process_of is not None:
            process_of.unacked += channel.get("messages_unacknowledged") or 0
    ours = {id(process) for process in by_connection.values()}
    for process in by_identity.values():
        if process.consumers or (id(process) in ours and process.pid is not None):
            yield process


def _identified(connection: Json) -> tuple[_Process, bool]:
    """The process a connection belongs to, and whether it is one that consumes: of foreign clients any may be."""
    name = connection.get("user_provided_name") or ""
    match = _NAME.fullmatch(name) if _product(connection) == _OURS else None
    if match is None:
        return _Process(name or connection["name"], connection.get("peer_host") or "", None), True
    return _Process(match["name"], match["host"], int(match["pid"])), match["what"] == _CONSUMES


def _product(connection: Json) -> str | None:
    return (connection.get("client_properties") or {}).get("product")


def _is_work(queue: str) -> bool:
    prefix = work_queue("")
    return queue.startswith(prefix) and name_problem(queue.removeprefix(prefix)) is None


def _state(process: _Process) -> WorkerState:
    prefix = work_queue("")
    queues = {consumer["queue"]["name"].removeprefix(prefix) for consumer in process.consumers}
    ours = any(_product(connection) == _OURS for connection in process.connections)
    versions = {(connection.get("client_properties") or {}).get("version") for connection in process.connections}
    return WorkerState(
        process.name,
        process.host,
        process.pid,
        sorted(queues),
        slots=_slots(process),
        prefetch=sum(consumer.get("prefetch_count") or 0 for consumer in process.consumers),
        running=process.unacked,
        since=min(connection.get("connected_at") or 0 for connection in process.connections),
        version=str(min(filter(None, versions), default="")) or None if ours else None,
        states=_states(process),
        user=process.connections[0].get("user") or "",
    )


def _slots(process: _Process) -> int | None:
    told = [(consumer.get("arguments") or {}).get(SLOTS) for consumer in process.consumers]
    known = [slots for slots in told if type(slots) is int]
    return sum(known) if known else None


def _states(process: _Process) -> Sequence[str]:
    """What is not as usual about its connections; nothing to consume counts as well."""
    states = {str(connection.get("state") or "running") for connection in process.connections} - {"running"}
    return [*sorted(states), *([] if process.consumers else ["not consuming"])]
