"""Which jobs an order asks for, and the stable ids by which the same order never becomes a second job."""

from __future__ import annotations

from uuid import UUID, uuid5

from penstock import NewJob
from penstock_jobs.email import SEND_EMAIL, SendEmail
from penstock_jobs.reports import SALES_REPORT, SalesReport
from services.orders.model import Order
from services.orders.regions import RegionFile

_NAMESPACE = UUID("6f2d1c7e-52a0-4a0e-9d0b-3f6f0c1f9a55")


def confirmation(order: Order, run: str) -> NewJob[SendEmail]:
    """The mail to the customer. One job per order and *run*, however often the order is submitted."""
    args = SendEmail(
        to=order.email,
        template="order_confirmation",
        values={"name": order.name, "item": order.item, "quantity": order.quantity, "total": f"{order.amount:.2f}"},
        order_id=order.order_id,
    )
    return SEND_EMAIL.new(args, id=_job_id(run, SEND_EMAIL.name, order.order_id), correlation_id=run)


def report(region: RegionFile, run: str) -> NewJob[SalesReport]:
    """The report on a region. One job per content of its file: other orders make another report."""
    args = SalesReport(region=region.region, folder=region.folder, source=region.name)
    return SALES_REPORT.new(args, id=_job_id(run, SALES_REPORT.name, region.name), correlation_id=run)


def _job_id(*words: str) -> str:
    # Not a UUIDv7 as the library would make: the id must follow from the order, so that a second submission repeats it.
    return str(uuid5(_NAMESPACE, "\n".join(words)))
