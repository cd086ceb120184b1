"""The daily digest: one mail for each subscriber, asked for through the outbox, a page of subscribers at a time."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from penstock import Job, Reject, Transaction, outbox
from penstock_jobs import DAILY_DIGEST, SEND_EMAIL, DailyDigest, SendEmail
from services.mailer import subscribers
from services.mailer.subscribers import Subscriber

TEMPLATE = "daily_digest"

_log = logging.getLogger("services.mailer")


class Digests:
    """Fans a digest out to *page* subscribers at a time. Holds no state; safe to share by tasks."""

    def __init__(self, page: int) -> None:
        self._page = page

    async def daily(self, job: Job[DailyDigest], tx: Transaction) -> dict[str, int | None]:
        """Ask for the mails of one page and for the next page, in the transaction that marks this one as done.

        Ids follow from the day and the subscriber's number: whatever is published twice, a mail is asked for once.
        """
        day = job.args
        found = await subscribers.page(tx, day.after, self._page)
        mails = {one.id: mail for one in found if (mail := _mail(one, day)) is not None}
        for number, mail in mails.items():
            await outbox.add(tx, SEND_EMAIL, mail, id=f"{_event(day)}:{number}", correlation_id=_event(day))
        following = found[-1].id if len(found) == self._page else None
        if following is not None:
            next_page = DailyDigest(date=day.date, after=following)
            await outbox.add(tx, DAILY_DIGEST, next_page, id=f"{_event(day)}:after:{following}")
        return {"mails": len(mails), "bad": len(found) - len(mails), "after": following}


async def refuse(_job: Job[DailyDigest]) -> None:
    """What becomes of a digest where the store cannot hold subscribers and an outbox."""
    raise Reject("a digest needs transactions: set the mailer's PENSTOCK_STORE_URL to sqlite:// or postgresql://")


def _mail(one: Subscriber, day: DailyDigest) -> SendEmail | None:
    """The mail for *one*; None when there is no address to send it to, which is told and stops nobody else."""
    date = f"{day.date:%A}, {day.date.day} {day.date:%B %Y}"
    try:
        return SendEmail(to=one.email, template=TEMPLATE, values={"name": one.name, "date": date})
    except ValidationError:
        _log.warning("subscriber %d has no address that mail can be sent to", one.id)
        return None


def _event(day: DailyDigest) -> str:
    return f"digest:{day.date}"
