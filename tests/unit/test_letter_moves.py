"""What a replay does when the connection that holds its letters goes and the one that sends them stays."""

from __future__ import annotations

import asyncio

from penstock.dead_letters import DeadLetters
from penstock.letters import DeadLetter
from penstock.message import Message
from penstock.ports import Link
from penstock.testing import ManualClock, MemoryBroker
from penstock.topology.build import build
from penstock.topology.names import DEAD
from penstock.topology.reading import parse_spec

WORK, LETTERS = "jobs.email", "jobs.email.dead"
BURIED, WINDOW = 400, 10


class Kept:
    """A broker that keeps the links it gave away, by their names."""

    def __init__(self) -> None:
        self.links: dict[str, Link] = {}
        self._broker = MemoryBroker(build(parse_spec("queues: {email: [email.*]}")), ManualClock())

    async def connect(self, name: str) -> Link:
        self.links[name] = link = await self._broker.connect(name)
        return link

    def named(self, what: str) -> Link:
        [link] = [link for name, link in self.links.items() if name.endswith(what)]
        return link


async def test_letters_that_went_back_to_their_queue_are_not_moved_from_where_they_were() -> None:
    broker = Kept()
    foreign = await broker.connect("foreign")
    outlet = await foreign.outlet()
    for number in range(BURIED):
        await outlet.publish(Message(b"{}", {}, str(number), "email.send"), DEAD, WORK, _soon())
    closing: list[asyncio.Future[None]] = []

    def close(_: DeadLetter) -> None:
        if not closing:
            closing.append(asyncio.ensure_future(broker.named("dead letters").close()))

    async with DeadLetters(broker) as letters:
        result = await letters.replay(LETTERS, window=WINDOW, each=close)
    await closing[0]
    assert result.stopped is not None
    sent, left = await foreign.depth(WORK), await foreign.depth(LETTERS)
    assert sent + left >= BURIED
    assert 1 <= sent <= 5 * WINDOW, "and not all that were named in the audit together"


def _soon() -> float:
    return asyncio.get_running_loop().time() + 10
