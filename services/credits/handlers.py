"""The credits service's jobs."""

from __future__ import annotations

from penstock import Handlers, Job, Reject, Transaction
from penstock_jobs.credits import CREDIT_ADD, CREDIT_TRANSFER, CreditAdd, CreditTransfer
from services.credits import ledger

handlers = Handlers()


@handlers.on(CREDIT_ADD, once="effect")
async def add(job: Job[CreditAdd], tx: Transaction) -> dict[str, int]:
    """Increase a user's balance. Whatever happens to worker, broker or database: once."""
    asked = job.args
    return {"balance": await ledger.add(tx, job.id, asked.user, asked.amount, asked.reason)}


@handlers.on(CREDIT_TRANSFER, once="effect")
async def transfer(job: Job[CreditTransfer], tx: Transaction) -> dict[str, int]:
    """Move credits from one user to another; without enough of them nothing happens and the job is rejected."""
    asked = job.args
    try:
        left = await ledger.transfer(tx, job.id, asked.from_, asked.to, asked.amount, asked.reason)
    except ledger.Overdrawn as error:
        raise Reject(str(error)) from error
    return {"left": left}
