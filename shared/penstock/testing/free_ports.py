"""Loopback ports that nobody has, given to one caller of this machine at a time."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from penstock.errors import ConfigError

LOOPBACK = "127.0.0.1"

# Below Linux's ephemeral ports: no outgoing connection may sit on the port of a node that is down for a moment.
_PORTS = range(15_000, 32_000)

#: Seconds for which a port is given to nobody else, whether it is listened on already, or again, or not.
_KEPT = 900.0


def free_ports(count: int) -> list[int]:
    """Return *count* different loopback ports that nobody listens on now, at random, below the ephemeral range.

    Whoever else of this user asks, in whatever process, is given others for a quarter of an hour. Raises
    ``ConfigError`` when there are too few.
    """
    with _given() as given:
        found: list[int] = []
        for port in random.sample(_PORTS, len(_PORTS)):
            if str(port) not in given and is_free(port):
                found.append(port)
            if len(found) == count:
                given.update(dict.fromkeys(map(str, found), time.time()))
                return found
    raise ConfigError(f"fewer than {count} free ports between {_PORTS.start} and {_PORTS.stop} on {LOOPBACK}")


def is_free(port: int) -> bool:
    """Whether nobody listens on *port* now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


@contextmanager
def _given() -> Iterator[dict[str, float]]:
    """The ports that were given lately, each with when; what the block adds is known to all."""
    path = Path(tempfile.gettempdir()) / f"penstock-ports-{os.getuid()}"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        given = {port: when for port, when in _read(file.read()).items() if 0 <= time.time() - when < _KEPT}
        yield given
        file.seek(0)
        file.write(orjson.dumps(given))
        file.truncate()


def _read(text: bytes) -> dict[str, float]:
    try:
        return dict(orjson.loads(text or b"{}"))
    except (ValueError, TypeError):  # cut short when its writer was killed: ports that are listened on are known anyway
        return {}
