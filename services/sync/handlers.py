"""The sync's jobs."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any  # results are JSON

from penstock import Job, Reject, Retry
from penstock_jobs import SyncPull
from services.sync.ports import Api, NotNow, Place, Refused, Shelf
from services.sync.sources import Source, Sources

_log = logging.getLogger("services.sync")


class Puller:
    """Pulls *sources* from *api* onto *shelf*, a page in each job. Holds no state; safe to share by tasks.

    *max_pages*: after so many, a pull ends, and the next one goes on from there: an API whose pages lead in a circle
    keeps nobody busy for ever. *stale_after*: a pull that has not begun by then is not begun any more.
    """

    def __init__(self, sources: Sources, api: Api, shelf: Shelf, *, max_pages: int, stale_after: timedelta) -> None:
        self._sources = sources
        self._api = api
        self._shelf = shelf
        self._max_pages = max_pages
        self._stale_after = stale_after

    async def pull(self, job: Job[SyncPull]) -> dict[str, Any]:
        """Pull one page and ask for the next, or ask for a pull of every source. A host that fails or wants to be left
        alone puts the job off; what somebody has to change rejects it."""
        if job.args.source is None:
            return await self._ask_for_all(job)
        source = self._sources.by_name.get(job.args.source)
        if source is None:
            raise Reject(f"there is no source {job.args.source} in SYNC_SOURCES")
        place = await self._shelf.place(source.name)
        if job.args.position not in (None, place.position):
            return {"superseded": place.position}
        try:
            return await self._page(job, source, place)
        except NotNow as error:
            raise Retry(str(error), after=error.after) from error
        except Refused as error:
            raise Reject(str(error)) from error

    async def _page(self, job: Job[SyncPull], source: Source, place: Place) -> dict[str, Any]:
        # Every copy after the first has waited somewhere, and goes before those that come for the first time.
        page = await self._api.page(source, place, returning=job.copy > 0)
        if page is None:
            return {"unchanged": place.position}
        number = job.args.page
        more = page.following is not None
        if more and number >= self._max_pages:
            _log.warning("%s has more than %d pages; the next pull goes on", source.name, self._max_pages)
        following = number + 1 if more and number < self._max_pages else None
        if not await self._shelf.keep(source.name, place, page, number=following):
            return {"superseded": place.position}
        return {"items": len(page.items), "position": place.position + 1, "more": more}

    async def _ask_for_all(self, job: Job[SyncPull]) -> dict[str, Any]:
        asked = {source: f"{job.id}:{source}" for source in self._sources.by_name}
        await self._shelf.ask_for(asked, self._stale_after)
        return {"sources": len(asked)}
