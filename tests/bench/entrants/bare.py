"""The same transactions alone: no Penstock, no broker, nothing but the database's driver."""

from __future__ import annotations

import asyncio
from functools import partial

from penstock.clock import new_job_id
from tests.bench.cells import COMPARED, Cell
from tests.bench.entrants.common import Figures, run_role
from tests.bench.entrants.crowd import Count
from tests.bench.entrants.transactions import Transact, best


async def transact_all(transact: Transact, tasks: int, count: Count) -> None:
    """As many at once as there are *tasks*."""

    async def lane() -> None:
        while count.begin():
            await transact(new_job_id())
            count.tick()

    await asyncio.gather(*(lane() for _ in range(tasks)))


def working(cell: Cell, total: int) -> Figures:
    """The transactions of *cell*."""
    return best(cell, total, transact_all)


ROLES = {cell.name: partial(working, cell) for cell in COMPARED}

if __name__ == "__main__":
    run_role(ROLES)
