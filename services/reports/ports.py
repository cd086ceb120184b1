"""What a report asks of a database, and how one says that it cannot answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol  # a database holds whatever it holds

from services.reports.outline import Type, Value
from services.reports.statement import Statement

#: Rows that are in memory at once.
BATCH = 1000


class DatabaseAway(Exception):
    """The database cannot be reached or cannot answer now; later it may."""


class TooSlow(Exception):
    """An answer of the database took longer than it may."""


class Refused(Exception):
    """The database cannot answer this query until somebody changes something; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Found:
    """An answer: the names of its *columns*, and its rows in *batches*, of which one is in memory at a time."""

    columns: Sequence[str]
    batches: Iterator[Sequence[Sequence[Any]]]


class Database(Protocol):
    """Answers queries, each from one state of its data and without changing any. Safe to share by threads."""

    def reading(
        self, statement: Statement, types: Mapping[str, Type], values: Mapping[str, Value]
    ) -> AbstractContextManager[Found]:
        """The answer to *statement* with *values* for its parameters; its connection ends with the block.

        Raises ``DatabaseAway``, ``TooSlow``, ``Refused``, and so does the reading of its batches.
        """
        ...
