"""Housekeeping: kind ``maintenance.purge_expired``, which deletes what is older than it needs to be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from penstock import JobKind

#: The name of one of the janitor's rules.
RuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,126}$")]


class PurgeExpired(BaseModel):
    """Delete what has expired by the janitor's own rules. What is said here only ever keeps more than they do.

    *only*: the rules to go by, ``marks`` for the store's; all of them when it is empty. *older_than_days*: keep
    everything that is younger. *as_of*: as if it were that instant, if that is past. *batch*: at most so many rows in
    one transaction. *dry_run*: count and delete nothing.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",  # a misspelt dry_run must not delete
        json_schema_extra={"examples": [{}, {"only": ["reports"], "older_than_days": 365, "dry_run": True}]},
    )

    only: tuple[RuleName, ...] = ()
    older_than_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    as_of: Annotated[AwareDatetime, Field(ge=datetime(2000, 1, 1, tzinfo=UTC))] | None = None
    batch: Annotated[int, Field(ge=1, le=5_000)] = 500
    dry_run: bool = False


PURGE_EXPIRED = JobKind("maintenance.purge_expired", PurgeExpired)
