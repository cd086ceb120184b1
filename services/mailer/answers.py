"""What a mail server's answer means: *never*, *not now*, or *too much for now*; in its own words either way."""

from __future__ import annotations

import re

from penstock.printable import printable, shortened
from services.mailer.ports import NotNow, Refused, TooMuch

#: Answers in the 5xx that speak of us, not of the mail: log in first, login too weak or wrong, encryption needed.
_OUR_FAULT = frozenset({530, 534, 535, 538})

#: The service, and not the mail, is not available; the server closes the connection (RFC 5321, 4.2.3).
_CLOSING = 421

#: An enhanced status code (RFC 3463), which servers write at the beginning of every line of an answer.
_STATUS = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?=\s|$)")

#: Of this mail alone: its address, its mailbox, its content (RFC 3463, 3.2, 3.3, 3.7).
_OWN = re.compile(r"4\.[126]\.")

#: Of the domain: not accepting mail, congestion (RFC 3463, 3.4 and 3.5), and what large providers say of a rate.
_LEAVE_ALONE = frozenset({"4.3.2", "4.4.5", "4.7.28", "4.7.500", "4.7.650"})
_TOO_MUCH = re.compile(
    r"too (many|much|fast|frequent|quick)|\b(rate|ratelimit|throttl\w*|congest\w*|slow down|unusual|exceed\w*)\b",
    re.IGNORECASE,
)
#: Each mail is greylisted by itself, and passes when it comes again (RFC 6647): leaving its domain alone helps nobody.
_GREY = re.compile(r"gr[ea]y.?list", re.IGNORECASE)

#: The longest that is kept of an answer (characters); a dead letter keeps as much.
_MOST = 1000


def meaning(code: int, words: str) -> Refused | NotNow:
    """What becomes of a mail that was answered *code* and *words*, several lines or one."""
    status, text = _read(words)
    said = f"{code} {text}".strip()
    if 500 <= code < 600 and code not in _OUR_FAULT:
        return Refused(said)
    if _OWN.match(status) or _GREY.search(text):
        return NotNow(said, own=True)
    if code == _CLOSING or (400 <= code < 500 and (status in _LEAVE_ALONE or _TOO_MUCH.search(text))):
        return TooMuch(said)
    return NotNow(said)


def _read(words: str) -> tuple[str, str]:
    """The enhanced status of an answer, or nothing, and its lines as one, which say the status once."""
    lines = [" ".join(line.split()) for line in words.splitlines()]
    found = _STATUS.match(lines[0]) if lines else None
    status = found[0] if found else ""
    rest = [line.removeprefix(status).lstrip() for line in lines]
    text = " ".join(part for part in (status, *rest) if part)
    return status, shortened(printable(text), _MOST)
