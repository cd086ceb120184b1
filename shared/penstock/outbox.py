"""The transactional outbox: jobs added in the caller's own transaction, and published once it has committed."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload  # connections of drivers that may not be there

import orjson

from penstock import headers, tracing
from penstock.clock import SystemClock
from penstock.errors import ConfigError, UsageError
from penstock.job import JobKind, NewJob, Receipt
from penstock.message import MAX_BODY
from penstock.publishing import Packer
from penstock.storing import BlockingTransaction, Transaction, lacks_a_table

if TYPE_CHECKING:
    import sqlite3
    from typing import Unpack

    import psycopg

__all__ = ["add"]

A = TypeVar("A")

_INSERT = """INSERT INTO penstock_outbox (kind, job_id, body, due, expires, correlation_id, app_id, headers, created)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"""

#: The bell is heard when the transaction commits, and not at all when it does not.
_INSERT_AND_RING = f"WITH added AS ({_INSERT}) SELECT pg_notify('penstock_outbox', '')"

#: The classes that a caller's own connection is one of.
_CONNECTIONS = {("sqlite3", "Connection"), ("psycopg", "Connection"), ("psycopg", "AsyncConnection")}
_IDLE = 0

#: What AMQP can carry of an id (bytes).
_MAX_TEXT = 255

_EPOCH = datetime.fromtimestamp(0, UTC)
_MILLISECOND = timedelta(milliseconds=1)

_clock = SystemClock()
_packer = Packer(_clock, None, MAX_BODY, None, trace=partial(tracing.publishing, operation="create"))


class Options(TypedDict, total=False):
    """What may be said of a job that is added: as of a ``NewJob``, and *app_id*, the producer's name."""

    id: str | None
    delay: timedelta | None
    at: datetime | None
    expires: datetime | timedelta | None
    correlation_id: str | None
    app_id: str | None


@overload
def add(tx: Transaction, kind: JobKind[A], args: A, **options: Unpack[Options]) -> Coroutine[Any, Any, Receipt]: ...
@overload
def add(
    tx: BlockingTransaction | sqlite3.Connection, kind: JobKind[A], args: A, **options: Unpack[Options]
) -> Receipt: ...
@overload
def add(
    tx: psycopg.AsyncConnection[Any], kind: JobKind[A], args: A, **options: Unpack[Options]
) -> Coroutine[Any, Any, Receipt]: ...
@overload
def add(tx: psycopg.Connection[Any], kind: JobKind[A], args: A, **options: Unpack[Options]) -> Receipt: ...
def add(
    tx: Any,
    kind: JobKind[A],
    args: A,
    *,
    id: str | None = None,  # noqa: A002 - the wire's own word
    delay: timedelta | None = None,
    at: datetime | None = None,
    expires: datetime | timedelta | None = None,
    correlation_id: str | None = None,
    app_id: str | None = None,
) -> Any:
    """Add a job to the outbox in the transaction *tx*, which stays the caller's to commit: then, and only then, a relay
    (``penstock outbox run``) publishes it, after those of its kind that were added before.

    *tx*: a handler's transaction, or a connection of psycopg or sqlite3 to the store's own database. To be awaited when
    *tx* is an asynchronous one. The options are those of ``NewJob``; *delay* counts from now, not from the commit.

    Raises ``SchemaError``, ``TooLarge``, ``UsageError`` before anything is written, ``ConfigError`` when the database
    has no outbox, else what the driver raises (``StoreUnavailable`` on a handler's transaction). One job a call; adding
    the same *id* twice publishes it twice, which a handler with a store recognises.
    """
    values, receipt = _row(NewJob(kind, args, id, delay, at, expires, correlation_id), app_id)
    execute, statement = _door(tx)
    if inspect.iscoroutinefunction(execute):
        return _added_later(execute, statement, values, receipt)
    with _explained():
        execute(statement, values)
    return receipt


async def _added_later(
    execute: Callable[..., Awaitable[object]], statement: str, values: tuple[Any, ...], receipt: Receipt
) -> Receipt:
    with _explained():
        await execute(statement, values)
    return receipt


def _row(new: NewJob[Any], app_id: str | None) -> tuple[tuple[Any, ...], Receipt]:
    """The row of a job, checked as a publisher would check it."""
    now = _clock.now_ms()
    packed = _packer.pack(new)
    if packed.span is not None:
        tracing.published(packed.span, tracing.CONFIRMED)
    message = packed.message
    job_id, expires = message.message_id or "", message.headers.get(headers.EXPIRES)
    for name, text in (("id", job_id), ("correlation_id", new.correlation_id), ("app_id", app_id)):
        _check_storable(name, text)
    trace = tracing.context_of(message.headers)
    told = orjson.dumps(trace).decode() if trace else None
    row = (new.kind.name, job_id, message.body, _due(new, now), expires, new.correlation_id, app_id, told, now)
    return row, Receipt(job_id, new.kind.name)


def _due(new: NewJob[Any], now: int) -> int | None:
    """The instant before which the job does not run, if there is one in the future."""
    if new.at is not None:
        due = (new.at - _EPOCH) // _MILLISECOND
    elif new.delay is not None:
        due = now + new.delay // _MILLISECOND
    else:
        return None
    return due if due > now else None


def _check_storable(name: str, text: object) -> None:
    if text is None:
        return
    if not isinstance(text, str):
        raise UsageError(f"{name} is {text!r}; it takes a str")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = 0
    if not 0 < size <= _MAX_TEXT or "\0" in text:
        raise UsageError(f"{name} has 1 to {_MAX_TEXT} bytes of UTF-8 without a zero character, unlike {text[:40]!r}")


def _door(tx: Any) -> tuple[Callable[..., Any], str]:
    """How to run a statement in *tx*, and the statement. Raises ``UsageError``."""
    match _driver(tx):
        case "sqlite3":
            _check_not_alone(not tx.in_transaction and _commits_at_once(tx))
            return tx.execute, _INSERT.replace("%s", "?")
        case "psycopg":
            _check_not_alone(tx.autocommit and tx.info.transaction_status == _IDLE)
            return _cursor(tx).execute, _postgres()
    match _driver(getattr(tx, "connection", None)):
        case "sqlite3":
            return tx.execute, _INSERT
        case "psycopg":
            return tx.execute, _postgres()
    raise UsageError(
        f"{type(tx).__name__} is no transaction: hand in a handler's, or a connection of psycopg or sqlite3"
    )


def _driver(connection: object) -> str | None:
    """Whose *connection* it is, told without importing anybody."""
    bases = {(base.__module__.partition(".")[0], base.__name__) for base in type(connection).__mro__}
    return next((name for name, cls in sorted(bases) if (name, cls) in _CONNECTIONS), None)


def _commits_at_once(connection: Any) -> bool:
    """Whether a statement outside of a transaction is one by itself."""
    autocommit = getattr(connection, "autocommit", None)  # since Python 3.12
    return autocommit is True or (autocommit is not False and connection.isolation_level is None)


def _check_not_alone(alone: bool) -> None:
    if alone:
        raise UsageError(
            "the connection commits every statement by itself: begin a transaction first, for the job to share it"
        )


def _cursor(connection: Any) -> Any:
    """A plain cursor, whatever the connection's own are: their placeholders and rows may be others."""
    import psycopg
    from psycopg.rows import tuple_row

    if isinstance(connection, psycopg.AsyncConnection):
        return psycopg.AsyncCursor(connection, row_factory=tuple_row)
    return psycopg.Cursor(connection, row_factory=tuple_row)


class _Bell:
    """When to wake the relays of a PostgreSQL outbox: not at every job. Any thread may ask.

    Transactions that ring commit one after another (a quarter fewer commits a second, measured with eight threads and a
    fast disk), and a relay that was woken looks again by itself, after 10 ms, 20 ms, 40 ms, and so on up to a second.
    """

    _EVERY = 0.05

    def __init__(self) -> None:
        self._rung = float("-inf")

    def due(self) -> bool:
        """Whether to ring now."""
        now = time.monotonic()
        if now - self._rung < self._EVERY:
            return False
        self._rung = now
        return True


_bell = _Bell()


def _postgres() -> str:
    return _INSERT_AND_RING if _bell.due() else _INSERT


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if lacks_a_table(error) and "penstock_outbox" in str(error):
            raise ConfigError("this database has no outbox: run penstock store migrate on it") from error
        raise
