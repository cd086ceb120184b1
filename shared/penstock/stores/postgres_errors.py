"""What PostgreSQL's and psycopg's errors mean to the library: the one place where they are translated."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import Error, OperationalError, ProgrammingError, errors

from penstock.errors import ConfigError, PenstockError, StoreUnavailable

#: https://www.postgresql.org/docs/current/errcodes-appendix.html: connection lost, out of something, shut down, I/O.
_AWAY_CLASSES = ("08", "53", "58")
_AWAY = frozenset(
    {
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
        "57P05",  # idle_session_timeout
        "25P03",  # idle_in_transaction_session_timeout
        "25006",  # read_only_sql_transaction: a standby, or a primary that became one
    }
)
_NO_TABLE, _NOT_ALLOWED = "42P01", "42501"
#: data_exception: about the values of one statement.
_DATA = "22"

#: libpq hands over no code for a refused connection (https://www.postgresql.org/docs/current/libpq-status.html).
_REFUSALS = re.compile(
    r"password authentication failed|no password supplied|no pg_hba\.conf entry|authentication failed for user"
    r"|(?:role|user|database) \"[^\"]*\" does not exist|is not permitted to log in|permission denied for database"
    r"|certificate verify failed|certificate file|private key file|invalid \S+ value"
    r"|unrecognized configuration parameter|unsupported startup parameter"
)
_PREFIX = re.compile(r"^(?:.* failed: |connection is bad: )?(?:FATAL: +)?")
_LONGEST = 300


@contextmanager
def translated(where: str, *, ours: bool = True) -> Iterator[None]:
    """Raise ``StoreUnavailable`` or ``ConfigError`` for what psycopg says about the database *where*.

    *ours*: whether the statement is the library's. One of a handler is refused for reasons that are the handler's to
    know: those errors are left as they are.
    """
    try:
        yield
    except Error as error:
        raise_meaning(error, where, ours=ours)
        raise


@contextmanager
def connecting(where: str) -> Iterator[None]:
    """Raise ``ConfigError`` for a connection to *where* that was refused, ``StoreUnavailable`` for one that failed."""
    try:
        yield
    except OperationalError as error:
        refused = _REFUSALS.search(str(error)) is not None
        raise (ConfigError if refused else StoreUnavailable)(f"{where}: {_words(error)}") from error
    except ProgrammingError as error:
        raise ConfigError(f"{where}: {_words(error)}") from error


def raise_meaning(error: Error, where: str, *, ours: bool = True) -> None:
    """Raise what *error* is to the library; return for what it does not know. See ``translated``."""
    meant = _meaning(error, where, ours)
    if meant is not None:
        raise meant from error


def _meaning(error: Error, where: str, ours: bool) -> PenstockError | None:
    state = error.sqlstate
    if state is None:
        # psycopg's own: the connection ended, or did not answer in time.
        lost = isinstance(error, OperationalError) and not isinstance(error, errors.PipelineAborted)
        return StoreUnavailable(f"{where}: {_words(error)}") if lost else None
    if state == _NO_TABLE and "penstock_" in str(error):
        # PostgreSQL says the same of tables in a schema that the role may not use.
        cure = "run penstock store migrate, or grant USAGE on their schema"
        return ConfigError(f"{where} shows its user no penstock tables: {cure}")
    if state == _NOT_ALLOWED and ours:
        return ConfigError(f"{where}: {_words(error)}: let its user read and write penstock's tables")
    # What else stops a statement of ours, be it a deadlock or a broken index, would stop it for other jobs as well.
    if state.startswith(_AWAY_CLASSES) or state in _AWAY or (ours and not state.startswith(_DATA)):
        return StoreUnavailable(f"{where}: {_words(error)}")
    return None


def _words(error: Error) -> str:
    """The first line of what *error* says, without what every such line begins with."""
    first = str(error).partition("\n")[0].replace("wait timeout expired", "no answer in time")
    return _PREFIX.sub("", first)[:_LONGEST]
