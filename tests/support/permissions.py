"""Everything that a user of the broker could try, who may do it in plain words, and the broker's answers as a table."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from penstock.brokers.aio_pika_driver import open_admin
from penstock.brokers.pika_driver import PikaBroker
from penstock.delay import kind_key, queue_key
from penstock.errors import AccessRefused, ConnectionLost, Unroutable
from penstock.message import Message
from penstock.ports import Link
from penstock.topology.matching import matches
from penstock.topology.model import Queue, Topology
from penstock.topology.spec import Role, Spec, UserSpec
from tests.support.inbox import PATIENCE

#: A kind that no queue takes, and a delay level.
NOBODYS = "other.kind"
LEVEL = "jobs.delay.00-1s"


@dataclass(frozen=True, slots=True)
class Act:
    """Something to try: *verb* is ``publish`` (to the exchange *place*), ``consume`` (a queue) or ``declare``; *about*
    is the kind or queue that it is about, and *key* what is published with."""

    verb: str
    place: str
    about: str = ""
    key: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.place} {self.key}".strip()


def acts(spec: Spec) -> Iterator[Act]:
    """One of each kind of act, for each kind pattern and each queue of *spec*."""
    kinds = [pattern.replace("*", "any").replace("#", "any") for pattern in spec.patterns]
    queues = [f"jobs.{queue.name}" for queue in spec.queues]
    for kind in (*kinds, NOBODYS):
        yield Act("publish", "jobs", kind, kind)
        yield Act("publish", "jobs.delay", kind, kind_key(1, kind))
    for queue in queues:
        yield Act("publish", "jobs.delay", queue, queue_key(1, queue))
        yield Act("publish", "jobs.delay", queue, queue_key(0, queue))
        yield Act("publish", "jobs.dead", queue, queue)
        yield Act("publish", "jobs.deliver", queue, queue_key(0, queue))
        yield Act("publish", "", queue, queue)
        yield Act("consume", queue, queue)
        yield Act("consume", f"{queue}.dead", queue)
    for word in ("state", "knock", "claim", "command"):
        yield Act("publish", "jobs.scheduler", word, word)
    yield Act("publish", "jobs.dead.audit", "", "replay")
    for queue in ("jobs.unrouted", "jobs.scheduler", "jobs.scheduler.view", "jobs.dead.audit", LEVEL):
        yield Act("consume", queue, queue)
    yield Act("declare", "jobs.mine")


def may(spec: Spec, user: UserSpec, act: Act) -> bool:
    """Whether *user* is meant to be able to do *act*, by what ``topology.yaml`` says of it."""
    if user.role is Role.TOPOLOGY:
        # The deploy tool: everything of ours, but for an exchange that only other exchanges publish to.
        return act.place not in ("", "jobs.deliver")
    operator, scheduler = user.role is Role.OPERATOR, user.role is Role.SCHEDULER
    publishes = any(matches(pattern, act.about) for pattern in user.publishes)
    works = act.about.removeprefix("jobs.") in user.works
    at_once = act.key.startswith("0." * 24)
    match act.verb, act.place:
        case "publish", "jobs":
            return publishes or (operator and any(matches(pattern, act.about) for pattern in spec.patterns))
        case "publish", "jobs.delay" if act.about.startswith("jobs."):
            return operator if at_once and not works else works
        case "publish", "jobs.delay":
            return publishes and not user.foreign
        case "publish", "jobs.dead":
            return works or operator
        case "publish", "jobs.scheduler":
            return operator if act.key == "command" else scheduler
        case ("publish", "jobs.dead.audit") | ("consume", "jobs.unrouted" | "jobs.scheduler.view" | "jobs.dead.audit"):
            return operator
        case "consume", "jobs.scheduler":
            return scheduler
        case "consume", queue:
            return operator if queue.endswith(".dead") else works
    return False


async def tried(url: str, acts: Sequence[Act]) -> list[bool]:
    """Which of *acts* the broker lets the user of *url* do; it has nothing against an unroutable message."""
    link = await PikaBroker(url, connect_timeout=timedelta(seconds=30)).connect("test")
    try:
        return [await _let(url, link, act) for act in acts]
    finally:
        await link.close()


def matrix(acts: Sequence[Act], answers: Mapping[str, Sequence[bool]]) -> str:
    """The table: a line for each act, a column for each user."""
    lines = [f"{'':60} {' '.join(answers)}"]
    for number, act in enumerate(acts):
        marks = (("yes" if found[number] else "-").center(len(user)) for user, found in answers.items())
        lines.append(f"{str(act)[:60]:60} {' '.join(marks)}")
    return "\n".join(lines)


async def _let(url: str, link: Link, act: Act) -> bool:
    try:
        match act.verb:
            case "publish":
                await _publish(link, act)
            case "consume":
                await (await link.consume(act.place, 1, lambda _: None, "test")).close()
            case _:
                await _declare(url, act.place)
    except AccessRefused:
        return False
    except Unroutable:
        return True
    except ConnectionLost as error:  # what the driver says of the default exchange: nothing of ours publishes there
        assert "refused for user" in str(error)  # noqa: PT017 - which of its reasons it was
        return False
    return True


async def _publish(link: Link, act: Act) -> None:
    outlet = await link.outlet()
    try:
        await outlet.publish(Message(b"{}"), act.place, act.key, asyncio.get_running_loop().time() + PATIENCE)
    finally:
        await outlet.close()


async def _declare(url: str, name: str) -> None:
    admin = await open_admin(url)
    try:
        await admin.declare(Topology(queues=(Queue(name, {"x-queue-type": "quorum"}),)))
    finally:
        await admin.close()
