"""The audit put together: ``penstock worker services.audit.app:build``, with ``rabbitmq/topology.audit.yaml``."""

from __future__ import annotations

from penstock import Worker
from penstock_jobs import KINDS
from services.audit.handlers import recording


def build() -> Worker:
    """The audit of every kind of the catalogue; its records are in the database of ``PENSTOCK_STORE_URL``."""
    return Worker(recording(KINDS), queue="audit")
