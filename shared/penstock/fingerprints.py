"""What makes two dead letters the same trouble: reason, error type, message without particulars, own frame."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

#: Characters of an error's text that are looked at, and that are left of its normal form. Our own letters carry 1 KiB.
_LOOKED_AT = 1024
_LEFT = 200

#: Characters at the end of a traceback that are looked at: the innermost frames are there.
_TAIL = 16 * 1024

#: The particulars of one occurrence, in the order in which they are tried at a place; each has its stand-in.
_PARTICULARS = re.compile(
    r"(?P<url>\b[a-z][a-z0-9+.-]{1,20}://[^\s'\"<>]+)"
    r"|(?P<address>[\w.+-]{1,64}@[\w.-]{1,255})"
    r"|(?P<id>\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b)"
    r"|(?P<path>(?<![\w/])(?:/[\w.~-]+){2,})"
    r"|(?P<text>(?<!\w)(?:'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`)(?!\w))"
    r"|(?P<hex>\b0[xX][0-9a-fA-F]+\b|\b(?=[a-fA-F]*\d)(?=\d*[a-fA-F])[0-9a-fA-F]{8,}\b)"
    r"|(?P<number>\d+(?:[.,:]\d+)*)"
)
#: A message that is nothing but a name, as of KeyError: the name is what happened, not a particular of it.
_NAME = re.compile(r"'[A-Za-z_][A-Za-z_.]{0,60}'")

_FRAME = re.compile(r'^ *File "([^"\n]{1,500})", line \d+, in ([^\n]{1,200})$', re.MULTILINE)

#: Where frames lie that are not the team's own: installed packages, Python itself, and the library that called.
_NOT_OWN = re.compile(
    r"/(?:site|dist)-packages/|/lib/python\d|^<|/penstock/(?:runners/\w+|execution|handlers|middleware|claiming|child)\.py$"
)
_PARTS = 3


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The trouble of a dead letter; equal for letters that died of the same thing, wherever and with whatever data."""

    reason: str
    error_type: str
    message: str
    frame: str

    @classmethod
    def of(cls, reason: str, error_type: str, error: str, traceback: str) -> Fingerprint:
        """The fingerprint of a letter that says so. Never raises; takes time bounded by limits, not by the texts."""
        return cls(reason[:_LEFT], error_type[:_LEFT], normalised(error), own_frame(traceback))

    @property
    def id(self) -> str:
        """Eight hexadecimal digits by which a group is named; the same on every machine and in every version."""
        words = "\0".join((self.reason, self.error_type, self.message, self.frame))
        return blake2b(words.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def normalised(error: str) -> str:
    """*error* on one line, with a stand-in for each particular: ``no user <id> at <address>``, ``took N s``."""
    text = " ".join(error[:_LOOKED_AT].split())
    if not _NAME.fullmatch(text):
        text = _PARTICULARS.sub(_stand_in, text)
    return text[:_LEFT]


def own_frame(traceback: str) -> str:
    """The innermost frame of *traceback* in the team's own code, ``services/mailer/handlers.py in send``.

    Without one of their own, the innermost of all; empty when there is none. No line number and no folder above: both
    change with a deploy that changes nothing about the trouble.
    """
    frames = _FRAME.findall(traceback[-_TAIL:])
    found = next((frame for frame in reversed(frames) if not _NOT_OWN.search(frame[0])), frames[-1] if frames else None)
    return "" if found is None else f"{'/'.join(found[0].split('/')[-_PARTS:])} in {found[1]}"


def _stand_in(found: re.Match[str]) -> str:
    return "N" if found.lastgroup == "number" else f"<{found.lastgroup}>"
