"""Tables whose rows expire, in whatever database the store is: a batch is one short transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from penstock import Transaction
from penstock.storing import EffectStore
from services.janitor.ports import COUNTED, Busy, Problem
from services.janitor.rules import TableRule, Unit

#: Nothing that says it is older is believed: a 0, an empty text, or seconds where milliseconds were meant.
_FLOOR = datetime(1973, 3, 3, 9, 46, 40, tzinfo=UTC)  # 10^11 ms


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a database is asked. *delete* and *count* are filled with ``table`` and ``column``, both quoted already.

    *look*: whether the table is there; raises ``Problem`` where it cannot be purged. *instant*: a moment as a
    timestamp column compares with it. *bounded*: makes waits in the transaction end. *errors* are the driver's;
    *passing* tells those that may not come again.
    """

    look: Callable[[Transaction, TableRule], Awaitable[bool]]
    instant: Callable[[datetime], object]
    delete: str
    count: str
    errors: type[Exception]
    passing: Callable[[Exception], bool]
    bounded: str | None = None


class Table:
    """The rows of *rule* in the database of *store*. The rule's names were checked when it was read."""

    def __init__(self, rule: TableRule, store: EffectStore, dialect: Dialect) -> None:
        self._rule = rule
        self._store = store
        self._dialect = dialect
        names = {"table": quoted(rule.table), "column": quoted(rule.column)}
        self._delete = dialect.delete.format(**names)
        self._count = dialect.count.format(**names)

    @property
    def keep(self) -> timedelta:
        """See ``Expiring.keep``."""
        return self._rule.keep

    async def present(self) -> bool:
        """See ``Expiring.present``."""
        async with self._transaction() as tx:
            return await self._dialect.look(tx, self._rule)

    async def delete(self, before: datetime, limit: int) -> int:
        """See ``Expiring.delete``."""
        async with self._transaction() as tx:
            values = {"floor": self._moment(_FLOOR), "before": self._moment(before), "limit": limit}
            return (await tx.execute(self._delete, values)).rowcount

    async def count(self, before: datetime) -> int:
        """See ``Expiring.count``."""
        async with self._transaction() as tx:
            values = {"floor": self._moment(_FLOOR), "before": self._moment(before), "limit": COUNTED}
            [[found]] = (await tx.execute(self._count, values)).fetchall()
            return int(found)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        try:
            async with self._store.effect() as effect:
                if self._dialect.bounded is not None:
                    await effect.transaction.execute(self._dialect.bounded)
                yield effect.transaction
        except self._dialect.errors as error:
            words = f"table {self._rule.table}: {str(error).partition(chr(10))[0]}"
            raise (Busy if self._dialect.passing(error) else Problem)(words) from error

    def _moment(self, instant: datetime) -> object:
        if self._rule.unit is Unit.MILLISECONDS:
            return int(instant.timestamp() * 1000)
        return self._dialect.instant(instant)


def quoted(name: str) -> str:
    """The name of a table, with its schema or without, or of a column, as SQL has it in quotes."""
    return ".".join(f'"{part}"' for part in name.split("."))
