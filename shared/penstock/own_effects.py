"""The effects of one worker whose claims are a part of their own transactions: begun, entered, renewed, left."""

from __future__ import annotations

from penstock.claims import Answer, Claim, Fenced, Verdict
from penstock.storing import OwnEffect, OwnEffectStore

_FRESH = Answer(Verdict.FRESH)


class OwnEffects:
    """Known by their claims from when they begin until they are left. One event loop."""

    def __init__(self, store: OwnEffectStore) -> None:
        self._store = store
        self._effects: dict[int, OwnEffect] = {}  # by the claim's token
        self._entered: set[int] = set()

    def __contains__(self, claim: Claim) -> bool:
        return claim.token in self._effects

    async def begin(self, claim: Claim) -> Answer:
        """Open the transaction of *claim* when that is ``FRESH``. Raises as ``OwnEffectStore.begin``."""
        begun = await self._store.begin(claim)
        if isinstance(begun, Answer):
            return begun
        self._effects[claim.token] = begun
        return _FRESH

    async def enter(self, claim: Claim) -> OwnEffect:
        """The effect to run in; a new one when a middleware calls its handler again.

        Raises ``Fenced`` when another run got between the two, and as ``begin``.
        """
        if claim.token in self._entered and (await self.begin(claim)).verdict is not Verdict.FRESH:
            raise Fenced()
        self._entered.add(claim.token)
        return self._effects[claim.token]

    async def renew(self, claim: Claim) -> None:
        """Let the lease of *claim* begin anew, if its effect is known still. Raises ``StoreUnavailable``."""
        effect = self._effects.get(claim.token)
        if effect is not None:
            await effect.renew()

    async def leave(self, claim: Claim) -> None:
        """Forget the effect, rolled back when it was not entered. Idempotent."""
        effect = self._effects.pop(claim.token, None)
        if effect is not None and claim.token not in self._entered:
            await effect.abandon()
        self._entered.discard(claim.token)
