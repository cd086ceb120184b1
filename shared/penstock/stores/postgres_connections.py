"""Sessions with a PostgreSQL server: opened when needed, lent to one borrower at a time, ended when in doubt."""

from __future__ import annotations

import asyncio
import select
import threading
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar  # rows hold whatever SQL carries

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.generators import execute
from psycopg.rows import tuple_row

from penstock.claims import StoreUrl
from penstock.errors import ConfigError, StoreUnavailable, UsageError
from penstock.stores.postgres_errors import connecting
from penstock.stores.postgres_listening import ListeningConnection, checked

R = TypeVar("R")

#: How long an answer to a statement of the library is waited for, and a free connection.
PATIENCE = timedelta(seconds=30)

#: Settings for statements of the library. Records are found by their keys: a plan that was made and kept while the
#: table was small would read all of it for ever.
BY_KEY: Mapping[str, str] = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
BRIEF: Mapping[str, str] = {"statement_timeout": "30s"}

_LOOK_EVERY = 0.1

#: What a URL need not say. A server that vanished without a word is noticed in a minute, not in two hours.
_DEFAULTS: Mapping[str, str] = {
    "connect_timeout": "5",
    "fallback_application_name": "penstock",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}

#: When the server waits for the next statement of an open transaction.
_LEFT_ALONE = (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)

_NOT_YOURS = (
    "the transaction ends with the handler, together with the mark that the job is done: do not end it yourself"
)


class Session(ListeningConnection):
    """A connection that waits *patience* seconds for an answer; without end for as long as a handler has it."""

    patience = 0.0
    lent_to_handler = False
    #: Whether the statements that claim a job were prepared on it.
    prepared = False

    def wait(
        self, gen: PQGen[R], interval: float = _LOOK_EVERY, timeout: float | None = None
    ) -> Coroutine[Any, Any, R]:
        """See psycopg."""
        limit = timeout or (None if self.lent_to_handler else self.patience)
        return super().wait(gen, interval, limit)

    def as_new(self) -> None:
        """Take back what a borrower may have set on it."""
        self.lent_to_handler, self.row_factory, self.cursor_factory = False, tuple_row, psycopg.AsyncCursor

    def answers(self, words: bytes) -> Awaitable[Sequence[pq.abc.PGresult]]:
        """Say *words* and wait for the answers: see ``say``. For whoever has borrowed the session."""
        return self._answers_later(words) if self.lock.locked() else self.say(words, self.patience)

    async def _answers_later(self, words: bytes) -> Sequence[pq.abc.PGresult]:
        async with self.lock:
            pass  # it was being touched
        return await self.say(words, self.patience)

    async def tell(self, words: bytes) -> pq.abc.PGresult:
        """Say *words*, SQL without parameters; the last statement's result. Raises psycopg's errors.
        For whoever has borrowed the session."""
        return checked(await self.answers(words))

    async def touch(self) -> None:
        """Let the server see a sign of life, unless it is at work. For others than who has borrowed the session."""
        if self.pgconn.transaction_status in _LEFT_ALONE and not self.lock.locked():
            async with self.lock:
                checked(await self.say(b"", self.patience))

    async def commit(self) -> None:
        """Raise ``UsageError``: an effect that is committed without its mark could happen twice."""
        raise UsageError(_NOT_YOURS)

    async def rollback(self) -> None:
        """Raise ``UsageError``: a mark that is committed without its effect would lose the effect."""
        raise UsageError(_NOT_YOURS)


class BlockingSession(psycopg.Connection[tuple[Any, ...]]):
    """As ``Session``, for threads."""

    patience = 0.0
    lent_to_handler = False
    _beginning = False

    def begin(self) -> None:
        """Begin a transaction. The answer is taken in before the next statement, and seldom needs to be waited for."""
        self.pgconn.send_query(b"BEGIN")
        self._beginning = True

    def tell(self, words: bytes) -> pq.abc.PGresult:
        """See ``Session.tell``."""
        return self.wait(_said(self.pgconn, words))

    def wait(self, gen: PQGen[R], interval: float = _LOOK_EVERY, timeout: float | None = None) -> R:
        """See ``Session.wait``."""
        limit = timeout or (None if self.lent_to_handler else self.patience)
        if self._beginning:
            self._beginning = False
            checked(super().wait(execute(self.pgconn), interval, limit))
        return super().wait(gen, interval, limit)

    def commit(self) -> None:
        """See ``Session.commit``."""
        raise UsageError(_NOT_YOURS)

    def rollback(self) -> None:
        """See ``Session.rollback``."""
        raise UsageError(_NOT_YOURS)


def _said(connection: pq.abc.PGconn, words: bytes) -> PQGen[pq.abc.PGresult]:
    connection.send_query(words)
    return checked((yield from execute(connection)))


class Dialer:
    """Opens connections to the server *url* names, each with the server's *settings*. Safe to share by threads.

    The settings travel with the login, so that no pooler between can hand them to somebody else's session; PgBouncer
    has to pool whole sessions and let ``options`` pass. Needs PostgreSQL 14. Raises ``ConfigError`` for a bad URL.
    """

    def __init__(self, url: StoreUrl, **settings: str) -> None:
        try:
            said = conninfo_to_dict(url.text)
        except psycopg.ProgrammingError as error:
            # What libpq says may quote the URL, and with it the password.
            raise ConfigError(f"PENSTOCK_STORE_URL {url.shown} is no PostgreSQL URL") from error
        ours = " ".join(f"-c {name}={value}" for name, value in settings.items())
        options = f"{ours} {said.get('options') or ''}".strip()
        self.where = url.shown
        self._conninfo = make_conninfo("", **{**_DEFAULTS, **said, "options": options})

    async def dial(self, patience: timedelta = PATIENCE) -> Session:
        """A connection that waits *patience* for an answer, and where every statement is a transaction.

        Raises ``ConfigError`` when it is refused, ``StoreUnavailable`` when it fails.
        """
        with connecting(self.where):
            session = await Session.connect(self._conninfo, autocommit=True)
        session.patience = patience.total_seconds()
        return session

    def dial_blocking(self, patience: timedelta = PATIENCE) -> BlockingSession:
        """See ``dial``."""
        with connecting(self.where):
            session = BlockingSession.connect(self._conninfo, autocommit=True)
        session.patience = patience.total_seconds()
        return session


class Sessions:
    """Connections to a server that nobody uses at the moment; the one used last goes first. One event loop."""

    def __init__(self, dialer: Dialer, patience: timedelta = PATIENCE) -> None:
        self.where = dialer.where
        self._dialer = dialer
        self._patience = patience
        self._idle: list[Session] = []
        self._open = False

    def open(self) -> None:
        """Let connections be kept."""
        self._open = True

    async def close(self) -> None:
        """End the connections, those in use when they come back. Idempotent."""
        self._open = False
        while self._idle:
            await self._idle.pop().close()

    async def take(self) -> Session:
        """One without a transaction, made if there is none. Raises ``StoreUnavailable`` and ``ConfigError``."""
        while self._idle:
            session = self._idle.pop()
            if not _is_stale(session.pgconn):
                return session
            await session.close()
        return await self._dialer.dial(self._patience)

    async def keep(self, session: Session) -> None:
        """Keep *session* for the next, or end it when it has a transaction still, or is broken."""
        if not self._open or not _is_clean(session.pgconn):
            await session.close()
            return
        session.as_new()
        self._idle.append(session)


class Pool:
    """Up to *size* connections, each lent to one task of one event loop at a time."""

    def __init__(self, dialer: Dialer, size: int, patience: timedelta = PATIENCE) -> None:
        self._sessions = Sessions(dialer, patience)
        self._size = size
        self._patience = patience
        self._turns = asyncio.Semaphore(size)

    def open(self) -> None:
        """Let connections be kept for the next borrower."""
        self._sessions.open()

    async def close(self) -> None:
        """End the connections, those on loan when they come back. Idempotent."""
        await self._sessions.close()

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[Session]:
        """A connection without a transaction; ended afterwards when it has one still, or is broken.

        Raises ``StoreUnavailable`` when none is free in time or none can be made.
        """
        await self._turn()
        try:
            session = await self._sessions.take()
            try:
                yield session
            finally:
                await self._sessions.keep(session)
        finally:
            self._turns.release()

    async def _turn(self) -> None:
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                await self._turns.acquire()
        except TimeoutError:
            raise StoreUnavailable(all_in_use(self._sessions.where, self._size, self._patience)) from None


class BlockingPool:
    """As ``Pool``, for any number of threads."""

    def __init__(self, dialer: Dialer, size: int, patience: timedelta = PATIENCE) -> None:
        self._dialer = dialer
        self._size = size
        self._patience = patience
        self._turns = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[BlockingSession] = []
        self._open = False

    def open(self) -> None:
        """See ``Pool.open``."""
        self._open = True

    def close(self) -> None:
        """See ``Pool.close``."""
        with self._lock:
            self._open = False
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()

    def borrow(self) -> BlockingSession:
        """See ``Pool.borrow``."""
        if not self._turns.acquire(timeout=self._patience.total_seconds()):
            raise StoreUnavailable(all_in_use(self._dialer.where, self._size, self._patience))
        try:
            return self._take()
        except BaseException:
            self._turns.release()
            raise

    def give_back(self, session: BlockingSession) -> None:
        """See ``Pool.give_back``."""
        with self._lock:
            if kept := self._open and _is_clean(session.pgconn):
                session.lent_to_handler, session.row_factory, session.cursor_factory = False, tuple_row, psycopg.Cursor
                self._idle.append(session)
        self._turns.release()
        if not kept:
            session.close()

    def _take(self) -> BlockingSession:
        while session := self._pop():
            if not _is_stale(session.pgconn):
                return session
            session.close()
        return self._dialer.dial_blocking(self._patience)

    def _pop(self) -> BlockingSession | None:
        with self._lock:
            return self._idle.pop() if self._idle else None


def all_in_use(where: str, size: int, patience: timedelta) -> str:
    """What is said when nobody gave a connection back in time."""
    return f"{where}: all {size} connections were in use for {patience.total_seconds():g} s"


def _is_clean(connection: pq.abc.PGconn) -> bool:
    """Whether the next borrower would find it as new. A broken one's state is unknown."""
    idle = connection.transaction_status == pq.TransactionStatus.IDLE
    return idle and connection.pipeline_status == pq.PipelineStatus.OFF


def _is_stale(connection: pq.abc.PGconn) -> bool:
    """Whether the server has said something to a connection nobody uses: mostly that it has ended it."""
    poll = select.poll()
    poll.register(connection.socket, select.POLLIN)
    return bool(poll.poll(0))
