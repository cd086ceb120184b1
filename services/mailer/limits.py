"""Limits by domain, as settings write them: ``example.org=10/s, *=100/s``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from penstock.pacing.rate_limits import per_second

L = TypeVar("L", int, float)

#: Stands for every domain that is not named; each has the limit for itself.
OTHERS = "*"

_NUMBER = re.compile(r"[1-9]\d{0,3}")
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*")


@dataclass(frozen=True, slots=True)
class Limits(Generic[L]):
    """A limit for each domain; None where there is none."""

    by_domain: Mapping[str, L] = field(default_factory=dict)

    def of(self, domain: str) -> L | None:
        """The limit of *domain*, which is in lower case."""
        return self.by_domain.get(domain, self.by_domain.get(OTHERS))

    def __bool__(self) -> bool:
        return bool(self.by_domain)


def rates(text: str) -> Limits[float]:
    """Read ``DOMAIN=RATE, …``, each rate such as ``10/s``, ``30/m`` or ``1000/h``. Raises ``ValueError``."""
    return _read(text, per_second)


def numbers(text: str) -> Limits[int]:
    """Read ``DOMAIN=NUMBER, …``. Raises ``ValueError``."""
    return _read(text, _whole)


def _read(text: str, limit: Callable[[str], L]) -> Limits[L]:
    found: dict[str, L] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        domain, equals, value = (word.strip() for word in part.partition("="))
        domain = domain.lower()
        if not equals or (domain != OTHERS and not _DOMAIN.fullmatch(domain)):
            raise ValueError(f"{part!r:.80} is not of the form example.org=LIMIT or *=LIMIT")
        if domain in found:
            raise ValueError(f"{domain} has two limits")
        found[domain] = limit(value)
    return Limits(found)


def _whole(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r:.40} is no number from 1 to 9999")
    return int(text)
