"""Pulling from other people's APIs: kind ``sync.pull``, a page of one source at a time."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from penstock import JobKind

#: The name of one of the sync's sources.
SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class SyncPull(BaseModel):
    """Pull what is new of *source*, or of every source when it is left out.

    The others are of the sync's own: *position*, the page that is asked for, counted since the source was first pulled,
    and *page*, counted since this pull began. A job whose page was pulled meanwhile does nothing.
    """

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{}, {"source": "partner-orders"}]})

    source: SourceName | None = None
    position: Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)] | None = None
    page: Annotated[int, Field(strict=True, ge=1, le=2**53 - 1)] = 1


SYNC_PULL = JobKind("sync.pull", SyncPull)
