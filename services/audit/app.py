"""The audit put together: ``penstock worker services.audit.app:build``, with ``rabbitmq/topology.audit.yaml``."""

from __future__ import annotations

from penstock import Worker
from penstock.service_tables import tables
from penstock_jobs import KINDS
from services.audit import records
from services.audit.handlers import recording

HOLDS = "the audit's records"


def build() -> Worker:
    """The audit of every kind of the catalogue; its records are in the database of ``PENSTOCK_STORE_URL``."""
    ready = tables(HOLDS, "python -m services.audit migrate", records.TABLE)
    return Worker(recording(KINDS), queue="audit", ready=ready)
