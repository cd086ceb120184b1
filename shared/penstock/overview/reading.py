"""Asks the management API for what an overview shows, in few questions whatever the number of queues."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any  # the management API's JSON

from penstock import thresholds
from penstock.delay import LEVELS, level_queue
from penstock.errors import BrokerError, ConnectionLost
from penstock.management import Management
from penstock.overview import history
from penstock.overview.model import Broker, Level, Overview, Processes, QueueState, Share, Trouble
from penstock.topology.names import UNROUTED, dead_queue, work_queue
from penstock.topology.spec import name_problem

Json = Mapping[str, Any]

#: Work queues that are looked into; of more, those that hold most.
MOST = 40

#: What dead letters are counted over.
_WITHIN = thresholds.DEAD_LETTERS_GROW.over or timedelta(minutes=10)

#: The most entries RabbitMQ puts on a page, and how long a pattern of names may get in a question.
_PAGE = 500
_LONGEST = 4_000

_COLUMNS = ",".join(
    (
        *("name", "consumers", "messages", "messages_ready", "messages_unacknowledged", "messages_dlx"),
        *("messages_details.samples", "messages_ready_details.samples", "messages_unacknowledged_details.samples"),
        *("message_stats.publish", "message_stats.publish_details", "message_stats.ack", "message_stats.ack_details"),
    )
)


def overview(management: Management, processes: Processes, most: int | None = MOST) -> Overview:
    """The broker's queues, judged by nobody yet; of more than *most* work queues only those that hold most.

    Counts of messages are some seconds old. Raises as ``Management`` does.
    """
    totals = _totals(management)
    families = sorted(_families(totals), key=lambda name: (-_held(totals, name), name))
    chosen = families if most is None else families[:most]
    details = _details(management, [*_looked_into(chosen, totals)], history.LENGTHS)
    large = [work_queue(name) for name in chosen if _is_large(totals[work_queue(name)])]
    details |= _details(management, large, history.LONG)
    now = time.time_ns() // 1_000_000
    queues = [_queue(name, details, totals, processes, now) for name in chosen]
    return Overview(
        broker=_broker(management),
        queues=queues,
        levels=[level for number in range(LEVELS) if (level := _level(number, details, totals, now)) is not None],
        unrouted=_count(totals.get(UNROUTED), "messages"),
        quiet=len(families) - len(chosen),
        processes=processes,
    )


def _totals(management: Management) -> Mapping[str, Json]:
    """Counts of every queue, without the statistics that cost the broker a millisecond each."""
    columns = "name,messages,messages_ready,messages_unacknowledged"
    found = management.read("queues/{vhost}", disable_stats="true", enable_queue_totals="true", columns=columns)
    return {entry["name"]: entry for entry in found}


def _families(totals: Collection[str]) -> Iterator[str]:
    """The names of work queues: ``email`` of ``jobs.email``."""
    prefix = work_queue("")
    for queue in totals:
        if queue.startswith(prefix) and name_problem(name := queue.removeprefix(prefix)) is None:
            yield name


def _held(totals: Mapping[str, Json], name: str) -> int:
    return _count(totals.get(work_queue(name)), "messages") + _count(totals.get(dead_queue(name)), "messages")


def _looked_into(names: Sequence[str], totals: Mapping[str, Json]) -> Iterator[str]:
    """The work queues *names*, their dead letters, and the levels out of which something does not come."""
    for name in names:
        yield from (work_queue(name), dead_queue(name))
    yield from (name for number in range(LEVELS) if _stuck(totals.get(name := level_queue(number), {})))


def _is_large(entry: Json) -> bool:
    return thresholds.BACKLOG_GROWS.broken_by(_count(entry, "messages_ready"))


def _details(management: Management, queues: Sequence[str], lengths: int) -> dict[str, Json]:
    """Statistics of *queues*, with samples of the last minutes; of their lengths for *lengths* seconds."""
    found: dict[str, Json] = {}
    for pattern in _patterns(queues):
        answer = management.read(
            "queues/{vhost}",
            page=1,
            page_size=_PAGE,
            use_regex="true",
            name=pattern,
            columns=_COLUMNS,
            lengths_age=lengths,
            lengths_incr=history.LENGTHS_STEP,
            msg_rates_age=history.RATES,
            msg_rates_incr=history.RATES_STEP,
        )
        found.update((entry["name"], entry) for entry in answer["items"])
    return found


def _patterns(queues: Sequence[str]) -> Iterator[str]:
    """Patterns that together fit *queues* exactly, each short enough for a question and for one page of answers."""
    taken: list[str] = []
    size = 0
    for queue in queues:
        if taken and (size + len(queue) > _LONGEST or len(taken) == _PAGE):
            yield f"^({'|'.join(taken)})$"
            taken, size = [], 0
        taken.append(re.escape(queue))
        size += len(taken[-1]) + 1
    if taken:
        yield f"^({'|'.join(taken)})$"


def _queue(
    name: str, details: Mapping[str, Json], totals: Mapping[str, Json], processes: Processes, now: int
) -> QueueState:
    work, dead = work_queue(name), dead_queue(name)
    counts, entry, letters = totals[work], details.get(work, {}), details.get(dead, {})
    ready, dead_count = _count(counts, "messages_ready"), _count(totals.get(dead), "messages")
    return QueueState(
        name,
        ready=ready,
        running=_count(counts, "messages_unacknowledged"),
        stuck=_stuck(counts),
        dead=dead_count,
        consumers=_count(entry, "consumers"),
        rate_in=history.rate(entry, "publish"),
        rate_out=history.rate(entry, "ack"),
        oldest=history.oldest(ready, entry, now),
        died=_died(entry, letters, now),
        dead_new=history.growth(letters, "messages", dead_count, _WITHIN, now),
        failed=processes.failed.get(work, {}),
        **_lasting(entry, ready, now),
    )


def _died(entry: Json, letters: Json, now: int) -> Share:
    span = thresholds.JOB_FAILURES.over or _WITHIN
    return Share(history.increase(letters, "publish", span, now), history.increase(entry, "ack", span, now))


def _lasting(entry: Json, ready: int, now: int) -> dict[str, Any]:
    """What has been so for as long as the rules say."""
    rules, growing = thresholds, thresholds.BACKLOG_GROWS.over or _WITHIN
    waits = partial(history.lasted, entry, now_ms=now, holds=lambda _, waiting, __: waiting > 0)
    unanswered = history.increase(entry, "ack", rules.SILENT.lasting, now) == 0
    return {
        "ready_lasts": waits(span=rules.NO_CONSUMERS.lasting),
        "stuck_lasts": history.lasted(entry, rules.STUCK.lasting, now, _is_stuck),
        "silence_lasts": waits(span=rules.SILENT.lasting) and unanswered,
        "grew": history.growth(entry, "messages_ready", ready, growing, now),
        "growth_lasts": history.grows(entry, "messages_ready", rules.BACKLOG_GROWS.value, growing, now),
    }


def _level(number: int, details: Mapping[str, Json], totals: Mapping[str, Json], now: int) -> Level | None:
    name = level_queue(number)
    if name not in totals:
        return None
    wait, waiting = name.rpartition("-")[2], _count(totals[name], "messages_ready")
    lasts = history.lasted(details.get(name, {}), thresholds.STUCK.lasting, now, _is_stuck)
    return Level(name, wait, waiting, _stuck(totals[name]), lasts)


def _is_stuck(messages: float, ready: float, unacked: float) -> bool:
    return messages - ready - unacked > 0


def _stuck(entry: Json) -> int:
    """What has expired or was given up, and is on its way to where it is dead-lettered."""
    return max(
        0, _count(entry, "messages") - _count(entry, "messages_ready") - _count(entry, "messages_unacknowledged")
    )


def _count(entry: Json | None, name: str) -> int:
    return int((entry or {}).get(name) or 0)


def _broker(management: Management) -> Broker:
    version = str(management.read("overview", columns="rabbitmq_version")["rabbitmq_version"])
    try:
        nodes = management.read("nodes", columns="name,running,mem_alarm,disk_free_alarm")
    except ConnectionLost:
        raise
    except BrokerError:  # takes the tag monitoring, and some seconds after a start; all else can be shown without it
        return Broker(version)
    return Broker(version, len(nodes), tuple(problem for node in nodes for problem in _problems(node)))


def _problems(node: Json) -> Iterator[Trouble]:
    if not node.get("running"):
        yield Trouble(thresholds.BROKER_DOWN.alert, f"node {node['name']} is down")
    if node.get("mem_alarm"):
        yield Trouble(thresholds.BROKER_ALARM.alert, f"memory alarm on {node['name']}: publishers are blocked")
    if node.get("disk_free_alarm"):
        yield Trouble(thresholds.BROKER_ALARM.alert, f"disk alarm on {node['name']}: publishers are blocked")
