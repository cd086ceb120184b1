"""``penstock queues``, which is told with ``penstock status``."""

from penstock.cli.status import queues_app as app

__all__ = ["app"]
