"""Whether all workers of a queue run on this host: what a store in a file needs to be trusted with."""

from __future__ import annotations

import os
import re
import socket

from penstock.errors import BrokerError
from penstock.management import Management
from penstock.topology.names import work_queue
from penstock.urls import BrokerUrl

#: A worker's consumer tag, ``mailer@host:pid#n``; see ``Worker``.
_TAG = re.compile(r".*@(?P<host>.+):\d+#")


def problems(queue: str, url: BrokerUrl) -> list[str]:
    """What keeps the workers of *queue* from sharing a file, a line each.

    Asks the management API (at ``RABBITMQ_MANAGEMENT_URL``) who else consumes the queue, as its consumer tags say. What
    cannot be seen is not trusted.
    """
    try:
        with Management(url, os.environ.get("RABBITMQ_MANAGEMENT_URL")) as management:
            tags = management.consumers(work_queue(queue))
    except BrokerError as error:
        return [f"{_WHY}, and who else consumes {queue} cannot be seen ({error}): use postgresql://"]
    return [
        f"{_WHY}, and {queue} is also consumed by {tag} on another host: use postgresql://"
        for tag in tags
        if _host(tag) != socket.gethostname()
    ]


_WHY = "sqlite:// keeps its records on the disk of one host"


def _host(tag: str) -> str | None:
    found = _TAG.match(tag)
    return None if found is None else found["host"]
