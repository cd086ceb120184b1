"""The catalogue: every kind of job our services publish and run, with its typed arguments.

Producers and workers import it and nothing of each other. Arguments only ever gain optional fields; a change that an
old worker could not read is a new kind.
"""

from __future__ import annotations

from typing import Any  # the kinds of a catalogue have different argument types

from penstock import JobKind
from penstock_jobs.credits import CREDIT_ADD, CREDIT_TRANSFER, CreditAdd, CreditTransfer
from penstock_jobs.digest import DAILY_DIGEST, DailyDigest
from penstock_jobs.email import SEND_EMAIL, SendEmail
from penstock_jobs.maintenance import PURGE_EXPIRED, PurgeExpired
from penstock_jobs.media import (
    IMAGE_RESIZE,
    VIDEO_THUMBNAIL,
    VIDEO_TRANSCODE,
    ImageResize,
    VideoThumbnail,
    VideoTranscode,
)
from penstock_jobs.reports import SALES_REPORT, TABLE_REPORT, SalesReport, TableReport
from penstock_jobs.sync import SYNC_PULL, SyncPull

#: Every kind there is, in the order of their names.
KINDS: tuple[JobKind[Any], ...] = (
    CREDIT_ADD,
    CREDIT_TRANSFER,
    DAILY_DIGEST,
    SEND_EMAIL,
    IMAGE_RESIZE,
    PURGE_EXPIRED,
    SALES_REPORT,
    TABLE_REPORT,
    SYNC_PULL,
    VIDEO_THUMBNAIL,
    VIDEO_TRANSCODE,
)

__all__ = [
    "CREDIT_ADD",
    "CREDIT_TRANSFER",
    "DAILY_DIGEST",
    "IMAGE_RESIZE",
    "KINDS",
    "PURGE_EXPIRED",
    "SALES_REPORT",
    "SEND_EMAIL",
    "SYNC_PULL",
    "TABLE_REPORT",
    "VIDEO_THUMBNAIL",
    "VIDEO_TRANSCODE",
    "CreditAdd",
    "CreditTransfer",
    "DailyDigest",
    "ImageResize",
    "PurgeExpired",
    "SalesReport",
    "SendEmail",
    "SyncPull",
    "TableReport",
    "VideoThumbnail",
    "VideoTranscode",
]
