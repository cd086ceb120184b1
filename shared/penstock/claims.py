"""What a store remembers of a job, and the pure decision what a claim to run it is answered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from random import getrandbits
from typing import Any, ClassVar  # a job's arguments are any JSON

import orjson

from penstock.errors import ConfigError, PenstockError

#: Results above this are not kept (bytes of JSON).
MAX_RESULT = 64 * 1024


class Fenced(PenstockError):
    """Another run has taken the job over; this one may not end it, and its transaction is rolled back."""

    def __init__(self) -> None:
        super().__init__("another run has taken the job over")


class State(StrEnum):
    """Where a job stands, as a store remembers it."""

    RUNNING = "running"
    MOVED = "moved"
    DONE = "done"
    DEAD = "dead"
    SKIPPED = "skipped"


class Verdict(StrEnum):
    """What a claim is answered: only ``FRESH`` may run."""

    FRESH = "fresh"
    RUNNING = "running"
    MOVED = "moved"
    DONE = "done"
    DEAD = "dead"
    SKIPPED = "skipped"
    SUPERSEDED = "superseded"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Claim:
    """A wish to run *copy* of job *job_id* for *consumer*, for *lease* milliseconds to begin with.

    *token* is fresh for every claim: whoever holds the record's token may end it, nobody else. A claim whose answer was
    lost may be made again as it is. *args_hash* is compared between claims of copy 0 only; None on every other copy.
    """

    consumer: str
    job_id: str
    copy: int
    token: int
    lease: int
    args_hash: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What a record is kept under."""
        return self.consumer, self.job_id


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a claim; *until* (ms since 1970 UTC) with ``RUNNING``, *result* (JSON) with ``DONE``."""

    verdict: Verdict
    until: int = 0
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """How the run that holds *claim* ended: ``DONE`` with its *result* (JSON), ``MOVED``, ``DEAD`` or ``SKIPPED``."""

    claim: Claim
    state: State
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of one job at one consumer; *claimed* last. Instants are milliseconds since 1970 UTC."""

    consumer: str
    job_id: str
    copy: int
    state: State
    token: int
    until: int
    args_hash: str | None = None
    result: bytes | None = None
    claimed: int = 0


@dataclass(frozen=True, slots=True)
class UnderWay:
    """A run that leaves no record before it ends, for its claim is a part of its effect's transaction.

    *claimed*: when that was begun, in milliseconds since 1970 UTC; None where the store does not tell. Otherwise as a
    ``Record``, of what is not known yet.
    """

    consumer: str
    job_id: str
    claimed: int | None
    state: ClassVar[State] = State.RUNNING
    copy: ClassVar[None] = None
    until: ClassVar[None] = None
    result: ClassVar[None] = None


def decide(record: Record | None, claim: Claim, now: int) -> Verdict:
    """What *claim* is answered at *now* (ms): the copy fence, which every store obeys.

    ``DONE`` absorbs: the effect has happened, whichever copy asks; so does ``SKIPPED``: it shall not happen. A lower
    copy than the record's, or the same copy ended, is a left-over of what went on already. A running copy is waited
    for while its lease lasts. An expired lease or a higher copy is taken over, and the new token keeps the old run
    from ending.
    """
    if record is None:
        return Verdict.FRESH
    if claim.copy == 0 and None not in (claim.args_hash, record.args_hash) and claim.args_hash != record.args_hash:
        return Verdict.CONFLICT
    if record.state in (State.DONE, State.SKIPPED):
        return Verdict(record.state)
    if claim.copy != record.copy:
        return Verdict.FRESH if claim.copy > record.copy else Verdict.SUPERSEDED
    if record.state is not State.RUNNING:
        return Verdict(record.state)
    mine = record.token == claim.token
    return Verdict.FRESH if mine or record.until <= now else Verdict.RUNNING


def new_token() -> int:
    """A token no other claim has: 63 random bits. Random, not counted: a count would begin anew with the record."""
    return getrandbits(63)  # seeded by the system, and anew in each fork


def hash_of(body: bytes) -> str:
    """The hash of a job's arguments: the same for bodies that say the same in another order or spacing."""
    try:
        value: Any = orjson.loads(body)
    except ValueError:
        return blake2b(body, digest_size=16).hexdigest()  # JSON that only more lenient readers take
    return blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Where a store is, as ``PENSTOCK_STORE_URL`` says it. *text* may hold a password; *shown* does not."""

    scheme: str
    text: str
    shown: str

    @classmethod
    def parse(cls, text: str) -> StoreUrl:
        """Read ``sqlite:///FILE``, ``postgresql://…`` or ``redis://…``. Raises ``ConfigError``; shows no password."""
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(text.strip())
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ConfigError(f"PENSTOCK_STORE_URL cannot be read: {_FORMS}") from None
        scheme = {"postgres": "postgresql"}.get(parts.scheme, parts.scheme)
        if scheme not in ("sqlite", "postgresql", "redis", "rediss"):
            raise ConfigError(f"PENSTOCK_STORE_URL has the scheme {parts.scheme[:20]!r}: {_FORMS}")
        if scheme == "sqlite" and (parts.netloc or not parts.path.strip("/")):
            raise ConfigError("PENSTOCK_STORE_URL names no file: sqlite:///store.db, or sqlite:////var/lib/store.db")
        shown = f"{scheme}://{host}{f':{port}' if port else ''}{parts.path}"
        return cls(scheme, text.strip(), shown)

    @property
    def path(self) -> str:
        """The file of a ``sqlite`` store: three slashes for a relative path, four for an absolute one."""
        return self.text.partition("://")[2].partition("?")[0].removeprefix("/")


_FORMS = "write sqlite:///store.db, postgresql://user:password@host/database or redis://host:6379/0"
