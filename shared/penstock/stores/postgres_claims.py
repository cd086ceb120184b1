"""Claims on PostgreSQL: a whole batch in one statement, and a look at those records that it did not take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta

from psycopg import errors

from penstock.claims import Answer, Claim, Record, StoreUrl, Verdict, decide
from penstock.errors import StoreUnavailable
from penstock.stores import postgres_statements as statements
from penstock.stores.postgres_connections import BRIEF, BY_KEY, Dialer, Pool, Session
from penstock.stores.postgres_errors import translated

Answers = dict[statements.Key, Answer]

#: Milliseconds a claim waits behind a transaction that holds its record: one that is being committed needs less.
_LOCKED = 1000

#: A claim forgotten in a crash of the server takes its token along, so its effect cannot be committed: claims need not
#: wait for the disk. (The commit of an effect writes everything before it to the disk, its claim with it.)
_SETTINGS = {**BY_KEY, **BRIEF, "synchronous_commit": "off", "lock_timeout": str(_LOCKED)}

#: Rounds in which a record may change between being claimed and being looked at.
ROUNDS = 20

_FRESH = Verdict.FRESH


class PostgresClaims:
    """Answers claims over one connection of its own. *now*: milliseconds since 1970 UTC; None: the server's clock."""

    def __init__(self, url: StoreUrl, patience: timedelta, now: Callable[[], int | None]) -> None:
        self._shown = url.shown
        self._now = now
        self._pool = Pool(Dialer(url, **_SETTINGS), 1, patience)

    def open(self) -> None:
        """Let the connection be kept."""
        self._pool.open()

    async def close(self) -> None:
        """End the connection. Idempotent."""
        await self._pool.close()

    async def claim(self, claims: Sequence[Claim]) -> list[Answer]:
        """See ``Store.claim``. One round trip, and a second one when some are not fresh."""
        claims = statements.storable_claims(claims)
        answers: dict[statements.Key, Answer] = {}
        with translated(self._shown):
            for _ in range(ROUNDS):
                left = [claim for claim in claims if claim.key not in answers]
                if not left:
                    return [answers[claim.key] for claim in claims]
                answers |= await self._ask(left)
        raise StoreUnavailable(f"{self._shown}: a record changed whenever it was claimed")

    async def _ask(self, claims: Sequence[Claim]) -> Answers:
        """Answers to *claims*; none to one whose record changed before it could be looked at."""
        async with self._pool.lent() as session:
            try:
                return await self._take(session, claims)
            except errors.LockNotAvailable:
                # A record is held for longer than a commit takes, by a worker that stopped in it: the other claims of
                # the batch need not wait for that.
                return await self._answers_to_locked(session, claims)

    async def refused(self, claim: Claim) -> Answer | None:
        """Why *claim* was not taken a moment ago; None: it could be taken now."""
        claims = statements.storable_claims([claim])
        with translated(self._shown):
            async with self._pool.lent() as session:
                return (await self._reasons(session, claims)).get(claims[0].key)

    async def _take(self, session: Session, claims: Sequence[Claim]) -> Answers:
        cursor = await session.execute(statements.TAKE, self._asked(claims), prepare=True)
        taken: Iterable[tuple[str, str, int]] = await cursor.fetchall()
        answers = {(consumer, job_id): Answer(Verdict.FRESH, until) for consumer, job_id, until in taken}
        refused = [claim for claim in claims if claim.key not in answers]
        return answers | await self._reasons(session, refused) if refused else answers

    async def _reasons(self, session: Session, claims: Sequence[Claim]) -> Answers:
        """Why *claims* were not taken; nothing of one whose record, or whoever had it, has changed since."""
        now, records = await self._look(session, claims)
        verdicts = {claim.key: decide(records.get(claim.key), claim, now) for claim in claims}
        answers = {key: _answer(told, records.get(key)) for key, told in verdicts.items() if told is not _FRESH}
        if free := [claim for claim in claims if claim.key not in answers]:
            answers |= await self._under_way(session, free, now)
        return answers

    async def _under_way(self, session: Session, claims: Sequence[Claim], now: int) -> Answers:
        """To those of *claims* whose effects are under way: to ask again, at the latest when that run's lease ends."""
        leases = {claim.key: claim.lease for claim in claims}
        rows = await (await session.execute(statements.UNDER_WAY, self._asked(claims), prepare=True)).fetchall()
        return {
            (consumer, job_id): Answer(Verdict.RUNNING, now + max(0, leases[consumer, job_id] - (alone or 0)))
            for consumer, job_id, alone, _ in rows
        }

    async def _answers_to_locked(self, session: Session, claims: Sequence[Claim]) -> Answers:
        """To those whose records are locked: what is said there already, else to ask again soon."""
        unlocked = set(await (await session.execute(statements.UNLOCKED, self._asked(claims))).fetchall())
        now, records = await self._look(session, claims)
        answers: dict[statements.Key, Answer] = {}
        for claim in claims:
            record = records.get(claim.key)
            if record is not None and claim.key not in unlocked:
                verdict = decide(record, claim, now)
                soon = Answer(Verdict.RUNNING, now + _LOCKED)
                answers[claim.key] = soon if verdict is _FRESH else _answer(verdict, record)
        return answers

    async def _look(self, session: Session, claims: Sequence[Claim]) -> tuple[int, Mapping[statements.Key, Record]]:
        """The instant, and what is remembered of *claims* by key."""
        rows = await (await session.execute(statements.FIND, self._asked(claims), prepare=True)).fetchall()
        records = [statements.record(row[1:]) for row in rows if row[1] is not None]
        return rows[0][0], {(record.consumer, record.job_id): record for record in records}

    def _asked(self, claims: Sequence[Claim]) -> Mapping[str, str | int | None]:
        return {"asked": statements.asked(claims), "now": self._now()}


def _answer(verdict: Verdict, record: Record | None) -> Answer:
    assert record is not None, "a job that nothing is remembered of is fresh"
    until = record.until if verdict is Verdict.RUNNING else 0
    return Answer(verdict, until, record.result if verdict is Verdict.DONE else None)
