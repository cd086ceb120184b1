"""Idempotency keys: the same key is the same job, and nothing else may come under it.

How far that holds: the job id follows from client, kind and key, so that every intake, also one that was started again,
gives the same one, and a handler that says ``once`` runs it once. That other arguments are refused (409) and a repeated
request publishes nothing is known by memory, for the last so many keys of this process, and by the store, where there
is one, from the first run of the job on. Where both have nothing, the worker's store still tells: the second job is a
dead letter (conflict).
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

import structlog

from penstock import ConfigError, StoreUnavailable, Unconfirmed
from penstock.storing import Store
from services.intake.problems import Problem

#: Seconds that the store may take to say what it knows.
PATIENCE = 1.0

_log = structlog.stdlib.get_logger("penstock.intake")


def job_id_of(client: str, kind: str, key: str) -> str:
    """The id of the job that *client* names by *key*: a UUIDv8 (RFC 9562, section 5.8) that follows from all three."""
    digest = bytearray(sha256("\0".join((client, kind, key)).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(digest)))


@dataclass(slots=True, eq=False)
class Ticket:
    """A job under a key; *taken* is done once the broker has it, and None after its outcome was unknown."""

    job_id: str
    args_hash: str
    taken: asyncio.Future[None] | None


class Keys:
    """Remembers the last *most* jobs that came under keys; asks *store* for others. One event loop."""

    def __init__(self, most: int, store: Store | None) -> None:
        self._most = most
        self._store = store
        self._tickets: OrderedDict[str, Ticket] = OrderedDict()

    async def begin(self, job_id: str, args_hash: str) -> tuple[Ticket, bool]:
        """The ticket for *job_id*, and whether the caller is the one to publish the job and to ``end`` the ticket.

        Otherwise ``taken`` tells what becomes of it. Raises ``Problem`` (409) when it has other arguments.
        """
        ticket = self._tickets.get(job_id)
        if ticket is None:
            return await self._enter(job_id, args_hash)
        self._tickets.move_to_end(job_id)
        _compare(ticket.args_hash, args_hash)
        if ticket.taken is not None:
            return ticket, False
        ticket.taken = asyncio.get_running_loop().create_future()
        return ticket, True

    def end(self, ticket: Ticket, error: Exception | None) -> None:
        """The job is taken, or *error* says why it is not; one of unknown outcome is kept, to be published again."""
        taken = ticket.taken
        assert taken is not None
        if error is None:
            taken.set_result(None)
            return
        taken.set_exception(error)
        taken.exception()  # whoever waits has it; unread it would be logged as never retrieved
        ticket.taken = None
        if not isinstance(error, Unconfirmed) and self._tickets.get(ticket.job_id) is ticket:
            del self._tickets[ticket.job_id]

    async def _enter(self, job_id: str, args_hash: str) -> tuple[Ticket, bool]:
        """A new ticket, entered before the store is asked: who comes meanwhile waits for the same."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = self._tickets[job_id] = Ticket(job_id, args_hash, taken)
        while len(self._tickets) > self._most:
            self._tickets.popitem(last=False)
        try:
            known = await self._known(job_id)
            if known is not None:
                _compare(known, args_hash)
        except BaseException as error:
            self.end(ticket, error if isinstance(error, Problem) else Unconfirmed("the request was cut off"))
            raise
        if known is not None:
            self.end(ticket, None)
        return ticket, known is None

    async def _known(self, job_id: str) -> str | None:
        """The hash of the arguments that the store knows the job by; without an answer, the worker will compare."""
        if self._store is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE):
                records = await self._store.records(job_id)
        except (StoreUnavailable, ConfigError, TimeoutError) as error:
            _log.warning("the store was not asked for a key; the worker will compare", job_id=job_id, error=str(error))
            return None
        return next((record.args_hash for record in records if record.args_hash is not None), None)


def _compare(known: str, args_hash: str) -> None:
    if known != args_hash:
        raise Problem(409, "conflict", "a job with other arguments was submitted under this key")
