"""The store's own old marks, as something that expires."""

from __future__ import annotations

from datetime import datetime, timedelta

from penstock.storing import Store


class Marks:
    """What *store* remembers of jobs, for *keep* after their last run began."""

    def __init__(self, store: Store, keep: timedelta) -> None:
        self._store = store
        self.keep = keep

    async def present(self) -> bool:
        """See ``Expiring.present``."""
        return True

    async def delete(self, before: datetime, limit: int) -> int:
        """See ``Expiring.delete``. Raises ``StoreUnavailable``."""
        return await self._store.expire(int(before.timestamp() * 1000), limit)

    async def count(self, before: datetime) -> int | None:  # noqa: ARG002 - a store does not tell
        """See ``Expiring.count``."""
        return None
