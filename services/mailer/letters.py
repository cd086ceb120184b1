"""From a job to a mail: addresses, identity and text as headers and parts; nothing in a job can add a header."""

from __future__ import annotations

from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime
from urllib.parse import quote

from penstock import Job
from penstock_jobs.email import SendEmail
from services.mailer.templates import Text

#: Ties the mails of one business event together; carries the job's correlation id.
CORRELATION = "X-Correlation-ID"

# RFC 5322 allows 998; at the usual 78 Python breaks long ids into encoded words that no reader puts together again.
_POLICY = SMTP.clone(max_line_length=990)


def letter(job: Job[SendEmail], text: Text, sender: str) -> EmailMessage:
    """The mail that *job* asks for. Its Message-ID is the job id, so that a mail sent twice can be told as one."""
    message = EmailMessage(policy=_POLICY)
    message["From"] = Address(addr_spec=sender)
    message["To"] = Address(addr_spec=job.args.to)
    message["Subject"] = text.subject
    message["Date"] = format_datetime(localtime())
    message["Message-ID"] = f"<{_atom(job.id)}@penstock>"
    if job.correlation_id:
        message[CORRELATION] = _word(job.correlation_id)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text.plain)
    if text.html is not None:
        message.add_alternative(text.html, subtype="html")
    return message


def _atom(text: str) -> str:
    """*text* as the left part of a Message-ID: a dot may not stand at either end or beside another one."""
    return _word(text).replace(".", "%2E") or "none"


def _word(text: str) -> str:
    """*text* as one word that is safe in a header: ids from foreign producers may hold anything."""
    return quote(text, safe="", errors="replace")[:200]
