"""What the mailer's job code asks of the outside: something that takes a mail, or says *never* or *not now*."""

from __future__ import annotations

from email.message import EmailMessage
from typing import Protocol


class Refused(Exception):
    """The mail server will never take this mail; the text is its own words."""


class NotNow(Exception):
    """The mail server could not be reached or did not take the mail this time; trying again may help."""


class Post(Protocol):
    """Takes mails."""

    async def send(self, message: EmailMessage, sender: str, recipient: str) -> None:
        """Return once the server has taken *message*. Raises ``Refused`` or ``NotNow``. A mail may be taken twice."""
        ...
