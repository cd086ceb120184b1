"""The store in a Redis: claims and marks of lease strength, at the speed of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any  # a reply is whatever a script answers

from penstock.claims import Answer, Claim, Mark, Record, State, StoreUrl, Verdict
from penstock.clock import Clock
from penstock.errors import ConfigError
from penstock.overlaps import Admission, Entry
from penstock.stores import redis_scripts as scripts
from penstock.stores.redis_link import RedisLink
from penstock.stores.redis_overlap import ENTER, enter_keys, enter_values
from penstock.storing import StoreStatus

#: How long Redis remembers a job after its last claim when nobody expires it sooner.
RETENTION = timedelta(days=30)

#: How long an answer is waited for.
WITHIN = timedelta(seconds=10)

#: How many records one script looks at when they expire: what a claim then waits for is under a millisecond.
_STEP = 100

_PING_MS = 60_000
_VERSION = ("GET", scripts.SCHEMA_KEY)


class RedisStore:
    """A ``Store`` in the Redis database that *url* names: one server (no cluster), its own database for each system.

    It is of **lease strength**: a claim keeps others away while its lease lasts, and a mark keeps a job from running
    again, but neither can commit together with an effect. A mark is as durable as the server writes its append-only
    file: with ``appendfsync always`` it survives a crash once it is answered; with ``everysec`` a crash can lose the
    last second or two, and a failover to a replica what had not reached it. A job whose mark is lost runs again.

    Leases are measured by the server's clock, or by *clock* when it is given. *retention*: how long Redis itself keeps
    a job after its last lease began, should nobody call ``expire``. *within*: how long an answer is waited for.
    """

    def __init__(
        self,
        url: StoreUrl,
        *,
        retention: timedelta = RETENTION,
        clock: Clock | None = None,
        within: timedelta = WITHIN,
    ) -> None:
        self.shown = url.shown
        self._retention = retention // timedelta(milliseconds=1)
        self._clock = clock
        self._link = RedisLink(url, within)
        self._opened = False

    async def open(self) -> None:
        """See ``Store.open``."""
        [version] = await self._ask_once(_VERSION)
        self._check(version)
        self._opened = True

    async def close(self) -> None:
        """See ``Store.close``."""
        self._opened = False
        await self._link.close()

    async def ping(self) -> None:
        """See ``Store.ping``."""
        version, _ = await self._link.ask(_VERSION, ("SET", scripts.PING_KEY, 1, "PX", _PING_MS))
        self._check(version)

    async def claim(self, claims: Sequence[Claim]) -> list[Answer]:
        """See ``Store.claim``. All claims of a call in one round trip."""
        values: list[str | int] = [self._now(), self._retention]
        for claim in claims:
            values += (claim.consumer, claim.copy, claim.token, claim.lease, _tagged(claim.args_hash))
        answers = await self._run(scripts.CLAIM, [claim.job_id for claim in claims], values)
        return [Answer(Verdict(verdict.decode()), until, result) for verdict, until, result in answers]

    async def mark(self, marks: Sequence[Mark]) -> list[bool]:
        """See ``Store.mark``, and the class for how durable it is."""
        values: list[str | bytes | int] = []
        for mark in marks:
            result = b"" if mark.result is None else b"=" + mark.result
            values += (mark.claim.consumer, mark.claim.token, mark.state, result)
        return _truths(await self._run(scripts.MARK, [mark.claim.job_id for mark in marks], values))

    async def renew(self, claims: Sequence[Claim]) -> list[bool]:
        """See ``Store.renew``."""
        values: list[str | int] = [self._now(), self._retention]
        for claim in claims:
            values += (claim.consumer, claim.token, claim.lease)
        return _truths(await self._run(scripts.RENEW, [claim.job_id for claim in claims], values))

    async def release(self, claims: Sequence[Claim]) -> None:
        """See ``Store.release``."""
        values: list[str | int] = [self._now()]
        for claim in claims:
            values += (claim.consumer, claim.token)
        await self._run(scripts.RELEASE, [claim.job_id for claim in claims], values)

    async def enter(self, entry: Entry) -> Admission:
        """See ``Store.enter``, and the class for how durable it is. In one round trip."""
        answer = await self._link.run(ENTER, enter_keys(entry), enter_values(entry, self._now(), self._retention))
        if answer is None:
            self._check(None)
        return Admission(answer.decode())

    async def expire(self, before: int, limit: int) -> int:
        """See ``Store.expire``. In steps of a hundred records, with claims between them. Lanes go of themselves."""
        forgotten = 0
        for state in scripts.INDEXES:
            forgotten += await self._sweep(state, before, limit - forgotten)
        return forgotten

    async def records(self, job_id: str) -> list[Record]:
        """See ``Store.records``."""
        version, fields = await self._link.ask(_VERSION, ("HGETALL", scripts.JOB_PREFIX + job_id))
        self._check(version)
        return _records(job_id, fields)

    async def forget(self, job_id: str) -> int:
        """See ``Store.forget``."""
        forgotten: int = await self._run(scripts.FORGET, [job_id], [])
        return forgotten

    async def status(self) -> StoreStatus:
        """See ``Store.status``. Read off the indexes at once, however many records there are.

        Counted exactly, but for those that Redis forgot by itself after their retention: they are counted until further
        claims, or ``expire``, come upon them.
        """
        indexes = scripts.INDEXES.values()
        version, *found = await self._ask_once(
            _VERSION,
            *(("ZCARD", index) for index in indexes),
            *(("ZRANGE", index, 0, 0, "WITHSCORES") for index in indexes),
        )
        counts, firsts = found[: len(indexes)], found[len(indexes) :]
        return StoreStatus(
            None if version is None else int(version),
            scripts.SCHEMA,
            {state.value: count for state, count in zip(scripts.INDEXES, counts, strict=True) if count},
            min((int(first[1]) for first in firsts if first), default=None),
        )

    async def migrate(self) -> tuple[int | None, int]:
        """See ``Store.migrate``. There is nothing to make but the version."""
        try:
            version: bytes | None = await self._link.run(scripts.MIGRATE, [scripts.SCHEMA_KEY], [])
        finally:
            if not self._opened:
                await self._link.close()
        if version is not None:
            self._check_not_newer(version)
        return None if version is None else int(version), scripts.SCHEMA

    async def production_problems(self) -> list[str]:
        """See ``Store.production_problems``: it must neither drop records nor keep them in memory only."""
        try:
            found = await self._link.ask(("CONFIG GET", "maxmemory*"), ("CONFIG GET", "append*"))
        except ConfigError as error:
            return [f"{error}; the store's settings cannot be looked into: let its user run CONFIG GET"]
        return [f"{self.shown}: {problem}" for problem in _problems({**found[0], **found[1]})]

    async def _ask_once(self, *commands: Sequence[str | int]) -> list[Any]:
        """As the link's ``ask``; keeps no connection for a store that is not open."""
        try:
            return await self._link.ask(*commands)
        finally:
            if not self._opened:
                await self._link.close()

    def _now(self) -> int | str:
        return "" if self._clock is None else self._clock.now_ms()

    async def _run(self, script: scripts.Script, job_ids: Sequence[str], values: Sequence[str | bytes | int]) -> Any:
        answer = await self._link.run(script, scripts.keys(job_ids), values)
        if answer is None:
            self._check(None)
        return answer

    async def _sweep(self, state: State, before: int, limit: int) -> int:
        forgotten = live = 0
        while (step := min(_STEP, limit - forgotten)) > 0:
            counts: list[int] = await self._run(scripts.EXPIRE, [], [self._now(), before, step, live, state])
            forgotten += counts[0]
            live += counts[2]
            if sum(counts) < step:
                break
        return forgotten

    def _check(self, version: bytes | None) -> None:
        if version is None:
            raise ConfigError(f"{self.shown} has no schema: run penstock store migrate")
        if int(version) < scripts.SCHEMA:
            raise ConfigError(
                f"{self.shown} has schema {int(version)}, not {scripts.SCHEMA}: run penstock store migrate"
            )
        self._check_not_newer(version)

    def _check_not_newer(self, version: bytes) -> None:
        if int(version) > scripts.SCHEMA:
            raise ConfigError(
                f"{self.shown} has schema {int(version)}, newer than this penstock knows ({scripts.SCHEMA}): update it"
            )


def _tagged(text: str | None) -> str:
    return "" if text is None else "=" + text


def _truths(answers: Sequence[int]) -> list[bool]:
    return [answer == 1 for answer in answers]


def _records(job_id: str, fields: Mapping[bytes, bytes]) -> list[Record]:
    consumers = sorted(name[3:].decode() for name in fields if name.startswith(b"at:"))
    return [_record(job_id, consumer, fields) for consumer in consumers]


def _record(job_id: str, consumer: str, fields: Mapping[bytes, bytes]) -> Record:
    copy, state, token, until, claimed = fields[f"at:{consumer}".encode()].decode().split()
    args_hash, result = fields.get(f"hash:{consumer}".encode()), fields.get(f"result:{consumer}".encode())
    kept = None if args_hash is None else args_hash.decode()
    return Record(consumer, job_id, int(copy), State(state), int(token), int(until), kept, result, int(claimed))


def _problems(settings: Mapping[str, str]) -> Iterator[str]:
    policy = settings["maxmemory-policy"]
    if policy != "noeviction" and settings["maxmemory"] != "0":
        yield f"maxmemory-policy is {policy}: it would drop records, and their jobs would run again; set noeviction"
    if settings["appendonly"] != "yes":
        yield "appendonly is no: a restart would forget every record, and jobs would run again; set appendonly yes"
    if settings["appendfsync"] == "no":
        yield "appendfsync is no: a crash can forget half a minute of records; set everysec or always"
