"""What nobody may read in a log line or on a screen: which names hold secrets, and the passwords of addresses."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any  # JSON and header values

REDACTED = "***"

#: A name that has one of these in it, in any spelling, holds something nobody may read.
_SECRET = re.compile(
    r"passw(or)?d|passphrase|secret|token|authoriz|credential|cookie|api[^a-z]?key|private[^a-z]?key|access[^a-z]?key"
)
#: The password of an address, wherever in a text it stands.
_LOGIN = re.compile(r"(?<=://)([^\s/:@?#]*):[^\s/@]+@")


@lru_cache(4096)
def is_secret(name: str) -> bool:
    """Whether a field called *name* holds a secret."""
    return _SECRET.search(name.lower()) is not None


def without_logins(text: str) -> str:
    """*text* with the passwords of addresses taken out."""
    return _LOGIN.sub(rf"\1:{REDACTED}@", text) if "://" in text else text


def redacted(value: Any, names: Collection[str] = ()) -> Any:
    """*value* with what secret fields hold taken out, in any depth: those of ``is_secret``, and those called as one
    of *names* (lower case). Raises ``RecursionError`` for a value nested too deeply to be walked."""
    match value:
        case Mapping():
            return {
                name: REDACTED if _hidden(str(name), names) and item is not None else redacted(item, names)
                for name, item in value.items()
            }
        case list():
            return [redacted(item, names) for item in value]
        case str():
            return without_logins(value)
        case _:
            return value


def _hidden(name: str, names: Collection[str]) -> bool:
    return name.lower() in names or is_secret(name[:200])
