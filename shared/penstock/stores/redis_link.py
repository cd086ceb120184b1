"""The way to a Redis: its URL read strictly, every wait with an end, and its errors in our words, in one place."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any  # a reply is whatever the command answers
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from penstock.claims import StoreUrl
from penstock.errors import ConfigError, PenstockError, StoreUnavailable
from penstock.printable import printable, shortened
from penstock.stores.redis_scripts import Script

#: Seconds a connection may take to be made, TLS and all.
CONNECT_WITHIN = 5.0

#: Claims, marks, renewals and a ping side by side; who finds all of them taken waits, as for a reply.
CONNECTIONS = 8

_PORT = 6379
_TLS_OPTIONS = {"cafile": "ssl_ca_certs", "certfile": "ssl_certfile", "keyfile": "ssl_keyfile"}

#: What trying again does not help: by redis-py's class, or by words where it has no class.
_MISTAKES = (
    exceptions.AuthenticationError,
    exceptions.NoPermissionError,
    exceptions.MovedError,
    exceptions.ClusterCrossSlotError,
)
_WORDS_OF_MISTAKES = ("unknown command", "DB index is out of range", "NOPERM", "ACL failure", "executing the script")


class RedisLink:
    """Up to eight connections to one Redis, made when they are needed. For one event loop; safe to share by its tasks.

    Every method raises ``StoreUnavailable`` when the server is away, too slow or cannot write now, and ``ConfigError``
    when it refuses the login or what is asked for good. Nothing is tried again in here.
    """

    def __init__(self, url: StoreUrl, within: timedelta) -> None:
        """*within*: how long an answer is waited for, and a free connection with it. Raises ``ConfigError``."""
        self._shown = url.shown
        self._within = within.total_seconds()
        self._client = Redis.from_pool(_pool(url, self._within))

    async def run(self, script: Script, keys: Sequence[str], values: Sequence[str | bytes | int]) -> Any:
        """What *script* answers, in one round trip; in two when the server does not know it yet, or no more."""
        with self._translated():
            async with asyncio.timeout(self._within):
                try:
                    return await self._client.evalsha(script.sha, len(keys), *keys, *values)
                except exceptions.NoScriptError:
                    return await self._client.eval(script.text, len(keys), *keys, *values)

    async def ask(self, *commands: Sequence[str | int]) -> list[Any]:
        """What *commands* answer, sent in one go and carried out in order, each for itself."""
        with self._translated():
            async with asyncio.timeout(self._within), self._client.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command(*command)
                replies = await pipeline.execute(raise_on_error=False)  # else its text quotes the command
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            return replies

    async def close(self) -> None:
        """Let go of every connection. Idempotent."""
        with self._translated():
            await self._client.aclose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise StoreUnavailable(f"{self._shown}: no answer within {self._within:g} s") from error
        except (exceptions.RedisError, OSError) as error:
            raise _kind(error)(f"{self._shown}: {printable(shortened(str(error), 300))}") from error


def _kind(error: Exception) -> type[PenstockError]:
    wrong = isinstance(error, _MISTAKES) or any(words in str(error) for words in _WORDS_OF_MISTAKES)
    return ConfigError if wrong else StoreUnavailable


def _pool(url: StoreUrl, within: float) -> BlockingConnectionPool:
    parts = urlsplit(url.text)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    problems = [f"PENSTOCK_STORE_URL {url.shown}: {problem}" for problem in _problems(parts, options)]
    if problems:
        raise ConfigError(*problems)
    return BlockingConnectionPool(
        CONNECTIONS,
        timeout=within,
        host=parts.hostname,
        port=parts.port or _PORT,
        db=int(parts.path[1:] or 0),
        username=None if parts.username is None else unquote(parts.username) or None,
        password=None if parts.password is None else unquote(parts.password),
        socket_connect_timeout=min(CONNECT_WITHIN, within),
        socket_timeout=within,
        retry=Retry(NoBackoff(), 0),
        protocol=2,  # nothing of 3 is needed, and it costs further commands on every new connection
        **(_tls(url, options) if parts.scheme == "rediss" else {"connection_class": Connection}),
    )


def _problems(parts: SplitResult, options: Mapping[str, str]) -> Iterator[str]:
    if not parts.hostname:
        yield "the host is missing (expected redis://user:password@host:6379/0)"
    if parts.path[1:] and not (parts.path[1:].isascii() and parts.path[1:].isdecimal()):
        yield "what follows the host is no number of a database (expected redis://host:6379/0)"
    if parts.fragment:
        yield "has a # part; write # in a password as %23"
    for name in options:
        if name not in _TLS_OPTIONS:
            yield f"unknown option {name}; known are {', '.join(_TLS_OPTIONS)}"
        elif parts.scheme != "rediss":
            yield f"option {name} needs rediss"
    if "keyfile" in options and "certfile" not in options:
        yield "option keyfile needs certfile"


def _tls(url: StoreUrl, options: Mapping[str, str]) -> dict[str, Any]:
    """What redis-py wants for TLS with *options*, tried once: it would call a missing file an unreachable server."""
    try:
        context = ssl.create_default_context(cafile=options.get("cafile"))
        if "certfile" in options:
            context.load_cert_chain(options["certfile"], options.get("keyfile"))
    except OSError as error:  # ssl.SSLError is one too
        files = ", ".join(f"{name}={value}" for name, value in options.items()) or "the system CA files"
        raise ConfigError(f"PENSTOCK_STORE_URL {url.shown}: {files}: {error.strerror or error}") from error
    own = {_TLS_OPTIONS[name]: value for name, value in options.items()}
    return {"connection_class": SSLConnection, "ssl_cert_reqs": "required", "ssl_check_hostname": True, **own}
