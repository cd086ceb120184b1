"""What this machine brings: a store that answers and remembers long enough, and a port for metrics."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Iterator
from datetime import timedelta

from penstock.connect import store_for
from penstock.doctor.findings import Finding, State, failed, unseen, well, wrong
from penstock.errors import ConfigError, PenstockError, StoreUnavailable
from penstock.retry import RetryPolicy
from penstock.settings import Settings
from penstock.storing import Store

_PORT = "metrics port"
#: Seconds for a process on this machine to say that it is alive.
_PROBE = 2.0
_STORE = "store"
_START = "start it, or correct PENSTOCK_STORE_URL"


async def store(settings: Settings, patience: timedelta, *, needed: bool) -> list[Finding]:
    """Whether the store answers with the schema we know, can be trusted in production, and forgets late enough."""
    if settings.store_url is None and not needed:
        return [unseen(_STORE, "none is named (PENSTOCK_STORE_URL), and no worker that was named here needs one")]
    try:
        where = settings.store
        opened = store_for(where, connections=1)
    except ConfigError as error:
        return failed(_STORE, error)
    try:
        async with asyncio.timeout(patience.total_seconds()):
            found = [*await _answers(opened, production=settings.production), *_forgets_too_soon(settings)]
            return found or [well(_STORE, f"{where.shown} answers, its tables are those we know")]
    except TimeoutError:
        words = f"{where.shown} has not answered within {patience.total_seconds():g} s"
        return [wrong(_STORE, words, _START, StoreUnavailable.exit_code)]
    except ConfigError as error:  # no schema, or one of another version: its words say what to do
        return [Finding(_STORE, State.WRONG, problem) for problem in error.problems]
    except PenstockError as error:
        return [wrong(_STORE, str(error), _START, error.exit_code)]


async def _answers(opened: Store, *, production: bool) -> list[Finding]:
    try:
        await opened.open()
        await opened.ping()
        problems = await opened.production_problems() if production else []
        return [wrong(_STORE, problem, "see docs/effects-exactly-once.md") for problem in problems]
    finally:
        await opened.close()


def _forgets_too_soon(settings: Settings) -> Iterator[Finding]:
    """With the usual retries; workers that are named are checked with their own."""
    needed = RetryPolicy().horizon + settings.dead_retention
    if settings.store_retention < needed:
        words = f"forgets jobs after {settings.store_retention}, but one may come back for {needed}"
        yield wrong(_STORE, words, "raise PENSTOCK_STORE_RETENTION, or lower PENSTOCK_DEAD_RETENTION")


async def metrics_port(settings: Settings) -> Finding:
    """Whether the port for metrics can be had, or is held by a Penstock process already."""
    port, host = settings.metrics_port, settings.metrics_host
    if not port:
        return unseen(_PORT, "none is set (PENSTOCK_METRICS_PORT)" if port is None else "any free one is taken")
    try:
        await asyncio.get_running_loop().run_in_executor(None, _try, host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and await _is_ours(host, port):
            return well(_PORT, f"{host}:{port} is served by a Penstock process already; another one needs its own")
        words = f"{host}:{port} cannot be had: {error.strerror or error}"
        return wrong(
            _PORT, words, "choose another PENSTOCK_METRICS_PORT or PENSTOCK_METRICS_HOST, or end what holds it"
        )
    return well(_PORT, f"{host}:{port} is free")


def _try(host: str, port: int) -> None:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(address)
        trial.listen()


async def _is_ours(host: str, port: int) -> bool:
    """Whether what listens there answers as our liveness probe does."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PROBE):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return b"alive" in await reader.read(1024)
            finally:
                writer.close()
    return False
