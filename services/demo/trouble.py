"""Messages that no worker can run: the door takes none of them, so a careless producer sends them past it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from penstock import AsyncPublisher
from penstock.clock import new_job_id
from services.demo.door import Door

_GOOD = b'{"to": "ada@example.org", "template": "welcome", "values": {"name": "Ada"}}'

_MALFORMED = (
    b'{"to": "ada@example.org", "template": "wel',
    b"to=ada@example.org&template=welcome",
    b'{"to": "\xff\xfe", "template": "welcome"}',
    b'["ada@example.org", "welcome"]',
)
_BREAK_THE_SCHEMA = (
    b'{"template": "welcome"}',
    b'{"to": "nobody", "template": "welcome"}',
    b'{"to": "ada@example.org", "template": "../../etc/passwd"}',
    b'{"to": "ada@example.org\\r\\nBcc: everybody@example.org", "template": "welcome"}',
)

#: Not readable, no such kind, does not fit.
_REFUSALS = (400, 404, 422)


@dataclass(frozen=True, slots=True)
class Bad:
    """A message that ends as a dead letter."""

    kind: str
    body: bytes


def bad_messages(rounds: int) -> Iterator[Bad]:
    """*rounds* times: malformed JSON, arguments that break the schema, and kinds that nobody handles."""
    for _ in range(rounds):
        yield from (Bad("email.send", body) for body in (*_MALFORMED, *_BREAK_THE_SCHEMA))
        # A slip of the pen that the queue's pattern email.* takes all the same.
        yield from (Bad("email.sned", _GOOD), Bad("report.sails", b"{}"))


async def knock(door: Door) -> int:
    """Hand a round of bad messages in at the *door*; how many it refused as what they are."""
    answers = [await door.knock(bad.kind, bad.body) for bad in bad_messages(1)]
    return sum(answer in _REFUSALS for answer in answers)


async def send(publisher: AsyncPublisher, messages: Sequence[Bad], run: str) -> list[str]:
    """Publish *messages* as jobs of *run* and return their ids, each confirmed by the broker."""
    ids = []
    for bad in messages:
        receipt = await publisher.publish_body(bad.kind, bad.body, id=new_job_id(), correlation_id=run)
        ids.append(receipt.id)
    return ids
