"""From a job to a mail: addresses, identity, text and files as headers and parts; nothing in a job can add a header."""

from __future__ import annotations

from collections.abc import Sequence
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, localtime
from hashlib import sha256
from urllib.parse import quote

from penstock import Job
from penstock_jobs.email import SendEmail
from services.mailer.ports import File
from services.mailer.templates import Text

#: Ties the mails of one business event together; carries the job's correlation id.
CORRELATION = "X-Correlation-ID"

#: Characters of an id in a header.
_LONGEST = 200

# Any server takes seven bits a byte and 76 characters a line (RFC 2045); only some of them take more.
_PARTS = SMTP.clone(cte_type="7bit")
# RFC 5322 allows 998; at the usual 78 Python breaks long ids into encoded words that no reader puts together again.
_HEADERS = _PARTS.clone(max_line_length=990)


def letter(job: Job[SendEmail], text: Text, sender: str, files: Sequence[File] = ()) -> bytes:
    """The mail that *job* asks for, as it is sent. Its Message-ID is the job id, so that a mail sent twice can be told
    as one. Some 35 ms for each MiB of *files*."""
    message = EmailMessage(policy=_PARTS)
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
    for file in files:
        _attach(message, file)
    return message.as_bytes(policy=_HEADERS)


def _attach(message: EmailMessage, file: File) -> None:
    kind, _, subtype = file.content_type.partition("/")
    # Without a word on it, text is taken to be ASCII.
    params = {"charset": "utf-8"} if kind == "text" and _is_utf8(file.content) else {}
    message.add_attachment(file.content, maintype=kind, subtype=subtype, filename=file.name, params=params)


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _atom(text: str) -> str:
    """*text* as the left part of a Message-ID: a dot may not stand at either end or beside another one."""
    return _word(text).replace(".", "%2E") or "none"


def _word(text: str) -> str:
    """*text* as one word that is safe in a header: ids from foreign producers may hold anything. A long one ends in
    its digest, so that ids which begin alike stay two."""
    word = quote(text, safe="", errors="replace")
    return word if len(word) <= _LONGEST else f"{word[: _LONGEST - 33]}-{sha256(word.encode()).hexdigest()[:32]}"
