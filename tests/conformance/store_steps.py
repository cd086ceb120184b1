"""What tests of stores do again and again."""

from __future__ import annotations

from datetime import timedelta

from penstock.claims import Claim, Mark, State, Verdict, new_token
from penstock.storing import Store

#: How long a claim holds, in milliseconds.
LEASE = 60_000
#: The same, as a clock is turned by it.
MINUTE = timedelta(minutes=1)


def claim_of(job_id: str = "job", *, consumer: str = "credits", copy: int = 0, lease: int = LEASE) -> Claim:
    """A claim with a token of its own, on arguments that are not told."""
    return Claim(consumer, job_id, copy, new_token(), lease)


async def verdict_of(store: Store, claim: Claim) -> Verdict:
    """What *claim*, alone, is answered."""
    return (await store.claim([claim]))[0].verdict


async def taken(store: Store, claim: Claim) -> Claim:
    """*claim*, which holds its record now."""
    assert await verdict_of(store, claim) is Verdict.FRESH
    return claim


async def ended(store: Store, claim: Claim, state: State, result: bytes | None = None) -> Claim:
    """*claim*, whose run has ended so."""
    await taken(store, claim)
    assert await store.mark([Mark(claim, state, result)]) == [True]
    return claim
