"""The ticks of one worker in the lanes of their schedules: let in before their handlers run, expected back after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

from penstock.claims import Claim
from penstock.outcome import Outcome, Skipped, Snoozed
from penstock.overlaps import Admission, Entry, Tick

#: How many leases after the end of its own a tick that was let in is expected back: a broker notices in two that a
#: worker has gone without a word, and the tick still has to come to the front of its queue.
_PATIENCE = 4

#: How much longer than a lease the place of a tick is kept that waits: it asks every few seconds.
_KEPT = timedelta(seconds=10)

_MS = timedelta(milliseconds=1)
_AGAIN = timedelta(seconds=1)


class Lanes:
    """Asks a store (*ask* is its ``enter``) for ticks whose claims hold for *lease*. One event loop."""

    def __init__(self, ask: Callable[[Entry], Awaitable[Admission]], lease: timedelta) -> None:
        self._ask = ask
        self._patience = _PATIENCE * lease // _MS
        self._kept = (lease + _KEPT) // _MS
        self._entries: dict[int, Entry] = {}  # token → its entry, while it runs

    async def enter(self, claim: Claim, tick: Tick, wait: timedelta) -> Outcome | None:
        """None when the job that *claim* holds may run beside the other ticks; else what becomes of its delivery.

        One that waits asks again after *wait*. Raises what *ask* raises.
        """
        entry = Entry(claim, tick.schedule, tick.overlap, self._patience, self._kept)
        match await self._ask(entry):
            case Admission.RUN:
                self._entries[claim.token] = entry
                return None
            case Admission.WAIT:
                return Snoozed(wait, _not_ended(tick), same_copy=True)
            case Admission.SKIP:
                return Skipped(_not_ended(tick))
            case Admission.LOST:
                return Snoozed(_AGAIN, "another run has taken the job over", same_copy=True)

    async def stay(self, claim: Claim, away: timedelta) -> None:
        """Keep the place of a tick that comes back after *away*; nothing for any other job. Raises as ``enter``."""
        entry = self._entries.get(claim.token)
        if entry is not None:
            await self._ask(replace(entry, patience=entry.patience + away // _MS))

    def leave(self, claim: Claim) -> None:
        """The run of *claim* is over here. Idempotent."""
        self._entries.pop(claim.token, None)


def _not_ended(tick: Tick) -> str:
    return f"another tick of schedule {tick.schedule} has not ended"
