"""The daily digest: kind ``digest.daily``, which asks for one mail to every subscriber."""

from __future__ import annotations

import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from penstock import JobKind


class DailyDigest(BaseModel):
    """The digest of one day. *after*: subscribers up to this number have been asked for already, by an earlier job."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [{"date": "2026-08-03"}]})

    date: datetime.date
    after: Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)] = 0


DAILY_DIGEST = JobKind("digest.daily", DailyDigest)
